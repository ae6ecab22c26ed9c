"""Past one process: archives of millions of recordings, on one machine or on many."""

from rechka.scale.archive import Archive, Report
from rechka.scale.options import BatchOptions

__all__ = ["Archive", "BatchOptions", "Report"]
