"""Transcribe a manifest and score the result."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from rechka.errors import DataError, RechkaError
from rechka.evaluate import manifest as manifests
from rechka.evaluate.wer import Score, score

if TYPE_CHECKING:
    from rechka.recognizers import Asr

log = logging.getLogger(__name__)


def evaluate(asr: Asr, manifest: str | Path) -> Score:
    """Word and letter error rates of ``asr`` on the recordings of a manifest.

    Intervals are over speakers where the manifest names at least two, else over recordings. A recording that cannot be
    read counts as if nothing had been recognised in it, and is logged.

    Raises:
        DataError: the manifest cannot be read, a record has no text, or there are none.
    """
    records = list(manifests.read(manifest, require_text=True))
    if not records:
        raise DataError(f"{manifest} holds no records", remedy="give a manifest with recordings and texts")
    heard = []
    for record, result in zip(records, asr.transcribe_many(record.audio for record in records), strict=True):
        if isinstance(result, RechkaError):
            log.warning("%s: %s", record.audio, result)
        heard.append("" if isinstance(result, RechkaError) else result.text)
    speakers = [record.speaker or str(record.audio) for record in records]
    clusters = speakers if len(set(speakers)) > 1 else None
    return score([record.text or "" for record in records], heard, clusters=clusters)
