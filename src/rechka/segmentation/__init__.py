"""Where phrases begin and end: evidence of speech per frame, and the one cutter that turns it into spans."""

from rechka.segmentation.evidence import BlankEvidence, blank_evidence
from rechka.segmentation.segmenter import (
    Action,
    Close,
    Cut,
    Feed,
    FrameOptions,
    Mark,
    Open,
    Segmenter,
    SegmenterState,
)

__all__ = [
    "Action",
    "BlankEvidence",
    "Close",
    "Cut",
    "Feed",
    "FrameOptions",
    "Mark",
    "Open",
    "Segmenter",
    "SegmenterState",
    "blank_evidence",
]
