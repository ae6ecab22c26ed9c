"""Measuring: manifests, word and letter error rates.

The package itself can be called: ``rechka.evaluate(asr, "test.jsonl")``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from rechka.evaluate.manifest import Record
from rechka.evaluate.run import evaluate
from rechka.evaluate.wer import Counts, Score, score

if TYPE_CHECKING:
    from rechka.recognizers import Asr

__all__ = ["Counts", "Record", "Score", "evaluate", "score"]


class _Callable(ModuleType):
    """``rechka.evaluate`` is a folder of modules and, in the contract, a function; this makes it both."""

    def __call__(self, asr: Asr, manifest: str | Path) -> Score:
        return evaluate(asr, manifest)


sys.modules[__name__].__class__ = _Callable
