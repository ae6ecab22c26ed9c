"""Recordings that are recognised when there is time, whatever happens to the server meanwhile."""

from rechka.server.jobs.manager import Jobs, open_jobs

__all__ = ["Jobs", "open_jobs"]
