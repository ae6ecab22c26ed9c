"""Word and letter error rates with an interval: alignment, counts, bootstrap."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rechka.errors import DataError, UsageError
from rechka.text.normalize import scoring

Operation = Literal["equal", "substitute", "delete", "insert"]
Step = tuple[Operation, int | None, int | None]

_MATRIX_CELLS = 16_000_000  # above this the alignment halves the problem instead of keeping every cell
_Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Counts:
    """Edit operations that turn a hypothesis into its reference, and the length of the reference."""

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True, slots=True)
class Score:
    """Result of :func:`score`. Rates are fractions (1.0 is 100 %) and may exceed one; intervals are (low, high).

    Attributes:
        words: edits and number of reference words.
        letters: edits and number of reference characters, spaces between words counted.
        utterances: number of pairs.
        clusters: number of independent groups that the intervals are drawn over.
        wer_interval, cer_interval: 95 % bootstrap, see :func:`interval_95`.
    """

    words: Counts
    letters: Counts
    utterances: int
    clusters: int
    wer_interval: tuple[float, float]
    cer_interval: tuple[float, float]

    @property
    def wer(self) -> float:
        """Word edits over reference words."""
        return self.words.errors / self.words.length

    @property
    def cer(self) -> float:
        """Letter edits over reference letters."""
        return self.letters.errors / self.letters.length

    def to_dict(self) -> dict[str, Any]:
        """The score as plain numbers; intervals have five decimals, rates all that they have."""
        return {
            "wer": self.wer,
            "wer_low": round(self.wer_interval[0], 5),
            "wer_high": round(self.wer_interval[1], 5),
            "cer": self.cer,
            "cer_low": round(self.cer_interval[0], 5),
            "cer_high": round(self.cer_interval[1], 5),
            "substitutions": self.words.substitutions,
            "deletions": self.words.deletions,
            "insertions": self.words.insertions,
            "words": self.words.length,
            "letters": self.letters.length,
            "utterances": self.utterances,
            "clusters": self.clusters,
        }

    def __str__(self) -> str:
        low, high = self.wer_interval
        return (
            f"WER {100 * self.wer:.1f} % [{100 * low:.1f}, {100 * high:.1f}]  CER {100 * self.cer:.1f} %  "
            f"sub {self.words.substitutions} del {self.words.deletions} ins {self.words.insertions}  "
            f"of {self.words.length} words in {self.utterances} utterances"
        )


def align(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> list[Step]:
    """A shortest edit path between token sequences (Levenshtein): (operation, reference index, hypothesis index).

    The missing side's index is None. Among equally short paths one is chosen by a fixed rule, so the split into
    substitutions, deletions and insertions may differ from other tools while their sum may not.
    """
    ids: dict[Hashable, int] = {}
    ref = np.array([ids.setdefault(token, len(ids)) for token in reference], dtype=np.int32)
    hyp = np.array([ids.setdefault(token, len(ids)) for token in hypothesis], dtype=np.int32)
    steps: list[Step] = []
    _align(ref, hyp, 0, 0, steps)
    return steps


def counts(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> Counts:
    """The edits between two token sequences, counted."""
    tally = {"equal": 0, "substitute": 0, "delete": 0, "insert": 0}
    for operation, _, _ in align(reference, hypothesis):
        tally[operation] += 1
    return Counts(tally["substitute"], tally["delete"], tally["insert"], len(reference))


def score(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    clusters: Sequence[Hashable] | None = None,
    normalize: Callable[[str], str] = scoring,
    resamples: int = 1000,
    seed: int = 0,
) -> Score:
    """Error rates of hypotheses against references, with 95 % bootstrap intervals.

    Args:
        references, hypotheses: texts, pair by pair.
        clusters: for each pair who spoke it (or any unit that errs as a whole); whole clusters are resampled. Without
            it every utterance counts as independent, which is too hopeful when few speakers said many.
        normalize: applied to both sides; default the scoring form.
        resamples, seed: of the bootstrap.
    Raises:
        UsageError: sequences of different lengths.
        DataError: not one reference word.
    """
    if len(references) != len(hypotheses) or (clusters is not None and len(clusters) != len(references)):
        sizes = f"{len(references)} references, {len(hypotheses)} hypotheses"
        extra = "" if clusters is None else f", {len(clusters)} clusters"
        raise UsageError(f"as many hypotheses (and clusters) as references are needed, got {sizes}{extra}")
    pairs = [pair_counts(ref, hyp, normalize) for ref, hyp in zip(references, hypotheses, strict=True)]
    return score_counts(
        [pair[0] for pair in pairs], [pair[1] for pair in pairs], clusters=clusters, resamples=resamples, seed=seed
    )


def pair_counts(reference: str, hypothesis: str, normalize: Callable[[str], str] = scoring) -> tuple[Counts, Counts]:
    """Word edits and letter edits of one pair of texts."""
    ref, hyp = normalize(reference), normalize(hypothesis)
    return counts(ref.split(), hyp.split()), counts(ref, hyp)


_SEVERAL_SPACES = re.compile(r"\s\s+")


def raw_counts(reference: str, hypothesis: str) -> tuple[Counts, Counts]:
    """Word edits and letter edits of two texts as they are written, as jiwer counts them without settings.

    Words stand between spaces, runs of white space are one; letters are all characters between the first and the last
    that is no white space.
    """
    words = [
        [word for word in _SEVERAL_SPACES.sub(" ", text).strip().split(" ") if word] for text in (reference, hypothesis)
    ]
    return counts(*words), counts(reference.strip(), hypothesis.strip())


def score_counts(
    words: Sequence[Counts],
    letters: Sequence[Counts],
    *,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Score:
    """The score of pairs that were counted before. Arguments and errors as :func:`score`."""
    if not any(count.length for count in words):
        raise DataError(
            f"at least one reference word is needed, got {len(words)} references without words",
            remedy="check the manifest's text fields",
        )
    index, num_groups = grouped(range(len(words)) if clusters is None else clusters)
    return Score(
        words=_total(words),
        letters=_total(letters),
        utterances=len(words),
        clusters=num_groups,
        wer_interval=_bootstrap(words, index, num_groups, resamples, seed),
        cer_interval=_bootstrap(letters, index, num_groups, resamples, seed),
    )


def grouped(labels: Iterable[Hashable]) -> tuple[NDArray[np.int64], int]:
    """For each label the number of its group, in order of first appearance, and how many groups there are."""
    groups: dict[Hashable, int] = {}
    index = np.array([groups.setdefault(label, len(groups)) for label in labels], dtype=np.int64)
    return index, len(groups)


def _total(parts: Sequence[Counts]) -> Counts:
    return Counts(
        sum(part.substitutions for part in parts),
        sum(part.deletions for part in parts),
        sum(part.insertions for part in parts),
        sum(part.length for part in parts),
    )


def _bootstrap(
    parts: Sequence[Counts], index: NDArray[np.int64], num_groups: int, resamples: int, seed: int
) -> tuple[float, float]:
    errors = np.bincount(index, weights=[part.errors for part in parts], minlength=num_groups)
    lengths = np.bincount(index, weights=[part.length for part in parts], minlength=num_groups)
    drawn_errors, drawn_lengths = resampled((errors, lengths), resamples, seed)
    spoken = drawn_lengths > 0  # a draw of silent groups only has no rate
    return interval_95(drawn_errors[spoken] / drawn_lengths[spoken], num_groups)


_DRAWN_AT_ONCE = 1_000_000


def resampled(groups: Sequence[NDArray[Any]], resamples: int, seed: int) -> NDArray[np.float64]:
    """Sums of values over groups drawn with replacement, as many as there are; every draw serves all values.

    Args:
        groups: (G,) arrays, a value for each group.
        resamples, seed: of the bootstrap.
    Returns:
        (len(groups), resamples) sums.
    """
    count = len(groups[0])
    rng = np.random.default_rng(seed)
    sums = np.empty((len(groups), resamples))
    block = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, resamples, block):
        stop = min(resamples, start + block)
        drawn = rng.integers(0, count, (stop - start, count))
        for row, values in zip(sums, groups, strict=True):
            row[start:stop] = values[drawn].sum(axis=1)
    return sums


def interval_95(estimates: Sequence[float] | NDArray[np.float64], num_groups: int) -> tuple[float, float]:
    """The 95 % interval from bootstrap estimates: percentiles, moved outwards where few groups were resampled.

    Plain percentiles are too narrow for few groups, as a normal interval with the variance over n is: they miss the
    factor sqrt(n / (n - 1)) and Student's t. Taking percentiles further out mends both (Hesterberg 2015, "What teachers
    should know about the bootstrap", section 3.2: the expanded percentile interval).
    """
    share = 0.025
    if num_groups > 1:
        reach = math.sqrt(num_groups / (num_groups - 1)) * _student(num_groups - 1)
        share = NormalDist().cdf(-reach)
    low, high = np.percentile(estimates, [100 * share, 100 * (1 - share)])
    return float(low), float(high)


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t."""
    if freedom == 1:
        return math.tan(0.475 * math.pi)
    if freedom == 2:
        return 0.95 * math.sqrt(2.0 / (4 * 0.975 * 0.025))
    # Cornish-Fisher expansion around the normal (Abramowitz and Stegun 26.7.5); 0.2 % off for three, less for more.
    z, n = NormalDist().inv_cdf(0.975), freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _row(previous: _Ids, token: int, hyp: _Ids, steps: _Ids) -> _Ids:
    """The next row of the distance table: the left neighbour's chain of insertions is a running minimum."""
    best = np.empty_like(previous)
    best[0] = previous[0] + 1
    np.minimum(previous[1:] + 1, previous[:-1] + (hyp != token), out=best[1:])
    row: _Ids = np.minimum.accumulate(best - steps) + steps
    return row


def _last_row(ref: _Ids, hyp: _Ids) -> _Ids:
    steps = np.arange(len(hyp) + 1, dtype=np.int32)
    row = steps
    for token in ref:
        row = _row(row, int(token), hyp, steps)
    return row


def _align(ref: _Ids, hyp: _Ids, ref_at: int, hyp_at: int, steps: list[Step]) -> None:
    """Append the path of two id sequences, whose first tokens have the given indexes."""
    if len(ref) > 1 and (len(ref) + 1) * (len(hyp) + 1) > _MATRIX_CELLS:
        half = len(ref) // 2  # Hirschberg 1975: linear memory, twice the work
        join = int(np.argmin(_last_row(ref[:half], hyp) + _last_row(ref[half:][::-1], hyp[::-1])[::-1]))
        _align(ref[:half], hyp[:join], ref_at, hyp_at, steps)
        _align(ref[half:], hyp[join:], ref_at + half, hyp_at + join, steps)
        return
    table = np.empty((len(ref) + 1, len(hyp) + 1), dtype=np.int32)
    columns = np.arange(len(hyp) + 1, dtype=np.int32)
    table[0] = columns
    for i, token in enumerate(ref):
        table[i + 1] = _row(table[i], int(token), hyp, columns)
    path: list[Step] = []
    i, j = len(ref), len(hyp)
    while i or j:
        here = table[i, j]
        if i and j and here == table[i - 1, j - 1] + (ref[i - 1] != hyp[j - 1]):
            i, j = i - 1, j - 1
            path.append(("equal" if ref[i] == hyp[j] else "substitute", ref_at + i, hyp_at + j))
        elif i and here == table[i - 1, j] + 1:
            i -= 1
            path.append(("delete", ref_at + i, None))
        else:
            j -= 1
            path.append(("insert", None, hyp_at + j))
    steps.extend(reversed(path))
