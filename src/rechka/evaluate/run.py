"""Transcribe a manifest and score the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rechka.errors import DataError
from rechka.evaluate import manifest as manifests
from rechka.evaluate.analyse import overall
from rechka.evaluate.hear import hear
from rechka.evaluate.wer import Score

if TYPE_CHECKING:
    from rechka.recognizers import Asr


def evaluate(asr: Asr, manifest: str | Path) -> Score:
    """Word and letter error rates of ``asr`` on the recordings of a manifest.

    Intervals are over speakers where the manifest names at least two, else over recordings. A recording that cannot be
    read counts as if nothing had been recognised in it, and is logged.

    Raises:
        DataError: the manifest cannot be read, a record has no text, or no text has a word.
    """
    records = list(manifests.read(manifest, require_text=True))
    if not records:
        raise DataError(f"{manifest} holds no records", remedy="give a manifest with recordings and texts")
    result = overall(hear(asr, records).heard)
    if result is None:
        raise DataError(f"no text of {manifest} has a word, so there is nothing to score", remedy="check its texts")
    return result
