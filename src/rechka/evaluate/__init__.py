"""Measuring: manifests, word and letter error rates."""

from rechka.evaluate.manifest import Record
from rechka.evaluate.wer import Counts, Score, score

__all__ = ["Counts", "Record", "Score", "score"]
