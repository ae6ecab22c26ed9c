"""How many cores this process may really use; models that take all of them ask too, hence the place."""

from rechka.backends.cores import CGROUP, cores

__all__ = ["CGROUP", "cores"]
