"""What the runs of one or two models say: tables by group, frequent errors, words out of silence, and who is better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rechka.errors import UsageError
from rechka.evaluate.hear import Heard, Run
from rechka.evaluate.wer import Counts, Score, align, grouped, interval_95, resampled, score_counts
from rechka.text.confidence import calibration
from rechka.text.normalize import scoring

DURATIONS_S = (2.0, 5.0, 10.0, 20.0, 60.0)
SNRS_DB = (10.0, 20.0, 30.0, 40.0)
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison of two models on the same recordings; rates are fractions.

    Attributes:
        first, second: names of the models.
        difference: WER of the first minus WER of the second: positive means that the second is better.
        interval: 95 % bootstrap over speakers (or recordings), pairs kept together (``interval_95``).
        probability: share of resamples in which the second was better, ties counted half.
    """

    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    probability: float

    @property
    def verdict(self) -> str:
        """One sentence."""
        low, high = self.interval
        points = f"{100 * abs(self.difference):.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"
        if low > 0:
            return f"{self.second} is better than {self.first} by {points}"
        if high < 0:
            return f"{self.first} is better than {self.second} by {points}"
        return f"no difference between {self.first} and {self.second} is shown: {points}; more recordings would tell"


def speakers(heard: Sequence[Heard]) -> list[str]:
    """What errs as a whole: the speaker where the manifest names at least two, else the recording."""
    names = [item.record.speaker or str(item.record.audio) for item in heard]
    return names if len(set(names)) > 1 else [f"{name} {number}" for number, name in enumerate(names)]


def overall(heard: Sequence[Heard]) -> Score | None:
    """The score of all recordings; None if no reference has a word. Errors count as nothing recognised."""
    if not any(item.counts[0].length for item in heard):
        return None
    return score_counts(
        [item.counts[0] for item in heard],
        [item.counts[1] for item in heard],
        clusters=speakers(heard),
        resamples=RESAMPLES,
    )


def raw_wer(heard: Sequence[Heard]) -> float | None:
    """WER of the texts as they are written, case and punctuation included, as jiwer counts them; None without words."""
    return _rate([item.raw[0] for item in heard])


def raw_cer(heard: Sequence[Heard]) -> float | None:
    """CER of the texts as they are written, as jiwer counts them."""
    return _rate([item.raw[1] for item in heard])


def _rate(parts: Sequence[Counts]) -> float | None:
    length = sum(part.length for part in parts)
    return sum(part.errors for part in parts) / length if length else None


def _raw(heard: Sequence[Heard]) -> dict[str, Any]:
    """Rates and edits of the texts as they are written."""
    parts = [item.raw[0] for item in heard]
    return {
        "wer": raw_wer(heard),
        "cer": raw_cer(heard),
        "substitutions": sum(part.substitutions for part in parts),
        "deletions": sum(part.deletions for part in parts),
        "insertions": sum(part.insertions for part in parts),
        "words": sum(part.length for part in parts),
    }


def compare(first: Run, second: Run, *, resamples: int = 10 * RESAMPLES, seed: int = 0) -> Comparison:
    """Which of two models makes fewer word errors, and whether these recordings can tell.

    Raises:
        UsageError: the runs are not of the same recordings.
    """
    if [item.record.audio for item in first.heard] != [item.record.audio for item in second.heard]:
        raise UsageError("only runs over the same recordings can be compared", remedy="give both the same manifests")
    index, groups = grouped(speakers(first.heard))
    lengths = np.bincount(index, [item.counts[0].length for item in first.heard], groups)
    errors = [np.bincount(index, [item.counts[0].errors for item in run.heard], groups) for run in (first, second)]
    if not lengths.sum():
        raise UsageError("no reference has a word, so nothing can be compared")
    excess = errors[0] - errors[1]
    gained, totals = resampled((excess, lengths), resamples, seed)
    differences = gained[totals > 0] / totals[totals > 0]
    better = float((differences > 0).mean() + 0.5 * (differences == 0).mean())
    return Comparison(
        first.model, second.model, float(excess.sum() / lengths.sum()), interval_95(differences, groups), better
    )


def bucket(value: float | None, edges: Sequence[float], unit: str) -> str | None:
    """The name of the range that a value falls into."""
    if value is None:
        return None
    place = int(np.searchsorted(edges, value, side="right"))
    if place == 0:
        return f"under {edges[0]:g} {unit}"
    if place == len(edges):
        return f"over {edges[-1]:g} {unit}"
    return f"{edges[place - 1]:g} to {edges[place]:g} {unit}"


def _bucket_order(name: str) -> float:
    words = name.split()
    return float(words[0]) if words[0] not in ("under", "over") else (-np.inf if words[0] == "under" else np.inf)


GROUPS: dict[str, Callable[[Heard], Hashable | None]] = {
    "domain": lambda item: item.record.extra.get("domain"),
    "speaker": lambda item: item.record.speaker,
    "duration": lambda item: bucket(item.seconds or None, DURATIONS_S, "s"),
    "SNR (estimated)": lambda item: bucket(item.snr_db, SNRS_DB, "dB"),
}
"""How recordings may be told apart; a recording without the property is in no row."""


def tables(heard: Sequence[Heard]) -> dict[str, dict[str, Score]]:
    """For each kind of group that has at least two rows: row name to score."""
    result: dict[str, dict[str, Score]] = {}
    for name, label in GROUPS.items():
        rows: dict[str, list[Heard]] = {}
        for item in heard:
            value = label(item)
            if value is not None:
                rows.setdefault(str(value), []).append(item)
        scores = {row: made for row, members in rows.items() if (made := overall(members)) is not None}
        if len(scores) > 1:
            ordered = name in ("duration", "SNR (estimated)")
            result[name] = {row: scores[row] for row in sorted(scores, key=_bucket_order if ordered else None)}
    return result


def frequent_errors(heard: Sequence[Heard], top: int = 20) -> dict[str, list[tuple[str, int]]]:
    """The most frequent substitutions (``ref -> hyp``), deletions and insertions, words in scoring form."""
    found: dict[str, Counter[str]] = {"substitute": Counter(), "delete": Counter(), "insert": Counter()}
    for item in heard:
        ref, hyp = scoring(item.record.text or "").split(), scoring(item.text).split()
        for operation, i, j in align(ref, hyp):
            if operation == "substitute" and i is not None and j is not None:
                found[operation][f"{ref[i]} -> {hyp[j]}"] += 1
            elif operation == "delete" and i is not None:
                found[operation][ref[i]] += 1
            elif operation == "insert" and j is not None:
                found[operation][hyp[j]] += 1
    # Equal counts in the order of the alphabet, so that a report does not depend on the order of the manifest.
    return {name: sorted(c.items(), key=lambda pair: (-pair[1], pair[0]))[:top] for name, c in found.items()}


def silence(heard: Sequence[Heard]) -> dict[str, float] | None:
    """Words that were heard where nobody speaks (records whose text is empty); None if there are no such records."""
    silent = [item for item in heard if not (item.record.text or "").strip() and item.error is None]
    if not silent:
        return None
    words = sum(len(item.text.split()) for item in silent)
    minutes = sum(item.seconds for item in silent) / 60
    return {
        "recordings": len(silent),
        "with_words": sum(bool(item.text.strip()) for item in silent) / len(silent),
        "words_per_minute": words / minutes if minutes else 0.0,
    }


def confidences(heard: Sequence[Heard]) -> dict[str, Any] | None:
    """How far word confidences can be trusted (``rechka.text.confidence.calibration``); None if there are none."""
    values: list[float] = []
    right: list[bool] = []
    for item in heard:
        # In scoring form a word may be several, as "кто-то" is, or none, as a dash is; each is as sure as its word.
        kept = [(word.confidence, form) for word in item.words for form in scoring(word.text).split()]
        told = [(value, form) for value, form in kept if value is not None]
        for operation, _, j in align(scoring(item.record.text or "").split(), [form for _, form in told]):
            if j is not None:
                values.append(told[j][0])
                right.append(operation == "equal")
    return calibration(values, right) if values else None


def delays(heard: Sequence[Heard]) -> dict[str, float] | None:
    """Median and 95th percentile of the words' delays in seconds of audio; None unless the run was live."""
    values = [delay for item in heard for delay in item.delays]
    if not values:
        return None
    median, high = np.percentile(values, [50, 95])
    return {"words": len(values), "median_s": float(median), "p95_s": float(high)}


def summary(run: Run) -> dict[str, Any]:
    """Everything about one run as plain values for JSON."""
    heard = run.heard
    made = overall(heard)
    failed = [item for item in heard if item.error is not None]
    return {
        "model": run.model,
        "recordings": len(heard),
        "failed": [{"audio": str(item.record.audio), **item.error.to_dict()} for item in failed if item.error],
        "audio_s": round(run.audio_s, 3),
        "wall_s": round(run.wall_s, 3),
        "rtf": None if run.rtf is None else round(run.rtf, 5),
        "score": None if made is None else made.to_dict(),
        "raw_wer": raw_wer(heard),
        "raw": _raw(heard),
        "tables": {name: {row: s.to_dict() for row, s in rows.items()} for name, rows in tables(heard).items()},
        "frequent_errors": frequent_errors(heard),
        "silence": silence(heard),
        "confidence": confidences(heard),
        "delays": delays(heard),
    }
