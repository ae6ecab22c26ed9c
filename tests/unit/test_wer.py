"""Error rates: alignment, counts, bootstrap, agreement with jiwer."""

from __future__ import annotations

import random

import jiwer
import pytest

import rechka.evaluate.wer as module
from rechka.errors import DataError, UsageError
from rechka.evaluate.wer import Counts, align, counts, score


def test_align_names_every_token() -> None:
    assert align(["да", "я", "вас", "слышу"], ["да", "вас", "слышу", "хорошо"]) == [
        ("equal", 0, 0),
        ("delete", 1, None),
        ("equal", 2, 1),
        ("equal", 3, 2),
        ("insert", None, 3),
    ]


@pytest.mark.parametrize(
    ("ref", "hyp", "expected"),
    [
        ("", "", Counts(0, 0, 0, 0)),
        ("абв", "", Counts(0, 3, 0, 3)),
        ("", "аб", Counts(0, 0, 2, 0)),
        ("абв", "абв", Counts(0, 0, 0, 3)),
        ("абв", "агв", Counts(1, 0, 0, 3)),
        ("абвг", "авг", Counts(0, 1, 0, 4)),
        ("авг", "абвг", Counts(0, 0, 1, 3)),
    ],
)
def test_counts(ref: str, hyp: str, expected: Counts) -> None:
    assert counts(ref, hyp) == expected


def _noisy(rng: random.Random, words: list[str]) -> list[str]:
    out = []
    for word in words:
        how = rng.random()
        if how > 0.1:
            out.append(word if how > 0.3 else rng.choice("абвг"))
        if how > 0.9:
            out.append(rng.choice("абвг"))
    return out


def test_agrees_with_jiwer() -> None:
    rng = random.Random(1)
    refs, hyps = [], []
    for _ in range(200):
        words = ["".join(rng.choice("абв") for _ in range(rng.randint(1, 3))) for _ in range(rng.randint(1, 25))]
        refs.append(" ".join(words))
        hyps.append(" ".join(_noisy(rng, words)))
    ours = score(refs, hyps)
    assert ours.wer == pytest.approx(jiwer.wer(refs, hyps), abs=1e-12)
    assert ours.cer == pytest.approx(jiwer.cer(refs, hyps), abs=1e-12)
    assert ours.words.length == sum(len(ref.split()) for ref in refs)


def test_halving_keeps_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(2)
    ref = [rng.choice("абвг") for _ in range(150)]
    hyp = _noisy(rng, ref)
    whole = counts(ref, hyp).errors
    monkeypatch.setattr(module, "_MATRIX_CELLS", 50)
    steps = align(ref, hyp)
    assert sum(step[0] != "equal" for step in steps) == whole
    assert [step[1] for step in steps if step[1] is not None] == list(range(len(ref)))
    assert [step[2] for step in steps if step[2] is not None] == list(range(len(hyp)))


def test_score_normalises() -> None:
    result = score(["Ещё раз, пожалуйста!"], ["еще раз пожалуйста"])
    assert result.wer == result.cer == 0


def test_interval_is_seeded_and_holds_the_rate() -> None:
    refs = ["раз два три четыре"] * 60
    hyps = ["раз два три четыре", "раз два три", "раз два пять семь"] * 20
    one, two = score(refs, hyps), score(refs, hyps)
    assert one == two
    assert one.wer_interval[0] < one.wer < one.wer_interval[1]
    assert one.wer == pytest.approx(0.25)


def test_clusters_widen_the_interval() -> None:
    refs = ["раз два три четыре"] * 100
    hyps = ["раз два три четыре"] * 50 + ["семь восемь девять десять"] * 50
    alone = score(refs, hyps)
    speakers = score(refs, hyps, clusters=["а"] * 25 + ["б"] * 25 + ["в"] * 25 + ["г"] * 25)
    assert speakers.clusters == 4
    assert speakers.wer == alone.wer == 0.5
    assert speakers.wer_interval == (0.0, 1.0)
    assert alone.wer_interval[1] - alone.wer_interval[0] < 0.25


def test_known_small_bootstrap() -> None:
    """Two utterances, one all wrong: a resample is 0, 1/2 or 1, so the 95 % interval is everything."""
    assert score(["да", "нет"], ["да", "да"]).wer_interval == (0.0, 1.0)


def test_silence_counts_as_insertions() -> None:
    result = score(["", "да"], ["алло алло", "да"])
    assert result.words == Counts(0, 0, 2, 1)
    assert result.wer == 2


def test_errors_name_the_numbers() -> None:
    with pytest.raises(UsageError, match="2 references, 1 hypotheses"):
        score(["а", "б"], ["а"])
    with pytest.raises(UsageError, match="3 clusters"):
        score(["а"], ["а"], clusters=[1, 2, 3])
    with pytest.raises(DataError, match="reference word"):
        score(["", "..."], ["а", "б"])


def test_to_dict_and_line() -> None:
    result = score(["раз два три"], ["раз пять"])
    fields = result.to_dict()
    assert fields["wer"] == pytest.approx(2 / 3, abs=1e-5)
    assert fields["substitutions"] + fields["deletions"] + fields["insertions"] == 2
    assert fields["words"] == 3
    assert fields["utterances"] == 1
    assert str(result).startswith("WER 66.7 % [")
