"""The plan of a synthesis run: who says what, decided from a seed."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.errors import DataError, UsageError
from rechka.text.normalize import scoring
from rechka.train.synth.plan import PlanOptions, Utterance, estimated_seconds, make_plan, parse_source, spelled
from rechka.train.synth.voices import TRAIN_VOICES, VOICES, choose_voices
from rechka.train.text import held_out

NUMBERS = ("один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять", "десять", "ёлок", "ноль")
SENTENCES = [f"{a} и {b}, {c}." for a in NUMBERS for b in NUMBERS for c in NUMBERS]


@pytest.fixture
def texts(tmp_path: Path) -> list[tuple[Path, float]]:
    """Two files of different sentences, shares 3 : 1."""
    (tmp_path / "a.txt").write_text("\n".join(SENTENCES[:1000]), "utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(SENTENCES[1000:]))
    return [(tmp_path / "a.txt", 0.6), (tmp_path / "b.txt.gz", 0.2)]


def plan(texts: list[tuple[Path, float]], **options: object) -> list[Utterance]:
    return make_plan(texts, TRAIN_VOICES, PlanOptions(**options))  # type: ignore[arg-type]


def said(utterances: list[Utterance]) -> list[str]:
    return [scoring(sentence) for utterance in utterances for sentence in utterance.sentences]


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(texts: list[tuple[Path, float]]) -> None:
    assert plan(texts, seed=5, limit=60) == plan(texts, seed=5, limit=60)
    assert said(plan(texts, seed=5, limit=60)) != said(plan(texts, seed=6, limit=60))


def test_a_longer_plan_begins_with_the_shorter_one(texts: list[tuple[Path, float]]) -> None:
    assert plan(texts, limit=80)[:30] == plan(texts, limit=30)


def test_no_sentence_is_said_twice_even_if_it_stands_in_both_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(SENTENCES[:200]), "utf-8")
    (tmp_path / "b.txt").write_text("\n".join(s.upper() for s in SENTENCES[:200]), "utf-8")
    sentences = said(plan([(tmp_path / "a.txt", 1), (tmp_path / "b.txt", 1)], limit=500))
    assert len(sentences) == len(set(sentences)) > 100


@pytest.mark.parametrize("wanted", [False, True])
def test_only_one_side_of_the_held_out_wall_is_said(texts: list[tuple[Path, float]], wanted: bool) -> None:
    sentences = said(plan(texts, limit=10_000, held_out=wanted))
    assert len(sentences) > 50
    assert all(held_out(sentence) is wanted for sentence in sentences)


def test_excluded_sentences_are_not_said(texts: list[tuple[Path, float]]) -> None:
    first = plan(texts, limit=100)
    second = make_plan(
        texts, TRAIN_VOICES, PlanOptions(seed=9, limit=10_000), exclude=[s for u in first for s in u.sentences]
    )
    assert said(second)
    assert not set(said(first)) & set(said(second))


def test_parameters_stay_in_their_ranges_and_use_them(texts: list[tuple[Path, float]]) -> None:
    options = PlanOptions(limit=400)
    utterances = make_plan(texts, TRAIN_VOICES, options)
    for name in ("tempo", "pitch", "factor", "volume"):
        values = [getattr(utterance, name) for utterance in utterances]
        low, high = getattr(options, name)
        assert low <= min(values) < low + 0.2 * (high - low), name
        assert high - 0.2 * (high - low) < max(values) <= high, name
    joined = [utterance for utterance in utterances if len(utterance.sentences) == 2]
    assert 0.10 < len(joined) / len(utterances) < 0.20
    assert all(0.2 <= utterance.pause <= 1.2 for utterance in joined)
    assert {utterance.voice for utterance in utterances} >= {"anna", "elena", "irina", "aleksandr", "aleksandr-hq"}
    espeak = sum(utterance.voice.startswith("espeak") for utterance in utterances)
    assert 0.03 < espeak / len(utterances) < 0.12


def test_a_pseudo_speaker_keeps_the_size_of_its_throat(texts: list[tuple[Path, float]]) -> None:
    factors: dict[str, set[float]] = {}
    for seed in (1, 2):
        for utterance in plan(texts, seed=seed, limit=400):
            factors.setdefault(utterance.speaker, set()).add(utterance.factor)
    assert all(len(values) == 1 for values in factors.values())
    assert len({next(iter(values)) for values in factors.values()}) > 50


def test_shares_are_shares_of_the_audio(texts: list[tuple[Path, float]]) -> None:
    seconds = {"a.txt": 0.0, "b.txt.gz": 0.0}
    for utterance in plan(texts, hours=0.3):
        seconds[utterance.source] += estimated_seconds(utterance, VOICES[utterance.voice])
    assert seconds["a.txt"] / seconds["b.txt.gz"] == pytest.approx(3, rel=0.03)
    assert sum(seconds.values()) == pytest.approx(0.3 * 3600, rel=0.02)


def test_the_text_joins_two_sentences_and_keeps_yo() -> None:
    utterance = Utterance(
        "1-000000", ("Ёлка, ёлка!", "Кто-то пришёл?"), "anna", "anna-01", 1, 1, 1, 0.5, 0, 0.4, 0, "x"
    )
    assert utterance.text == "ёлка ёлка кто то пришёл"
    assert dataclasses.replace(utterance, id="7-012345").path == "audio/012/7-012345.flac"


@given(st.text(alphabet=st.sampled_from("абвёЁЙйХ -—,.!?«»́\u00ad5aZ\u0435\u0308"), max_size=40))
def test_spelled_differs_from_scoring_by_yo_alone(text: str) -> None:
    assert spelled(text).replace("ё", "е") == scoring(text)


def test_a_plan_needs_an_end_and_sane_ranges(texts: list[tuple[Path, float]]) -> None:
    with pytest.raises(UsageError, match=r"hours or limit \(--hours or --limit\)"):
        plan(texts)
    with pytest.raises(UsageError, match="tempo"):
        plan(texts, limit=1, tempo=(1.2, 0.9))
    with pytest.raises(DataError):
        plan([(Path("absent.txt"), 1.0)], limit=1)


def test_sources_carry_shares(tmp_path: Path) -> None:
    assert parse_source("a/b.txt:0.25") == (Path("a/b.txt"), 0.25)
    assert parse_source("a/b.txt") == (Path("a/b.txt"), 1.0)
    odd = tmp_path / "a:1"
    odd.touch()
    assert parse_source(str(odd)) == (odd, 1.0)
    for wrong in ("a.txt:0", "a.txt:-1", "a.txt:much", "a.txt:nan"):
        with pytest.raises(UsageError, match="FILE:WEIGHT"):
            parse_source(wrong)


def test_voices_that_may_not_teach_a_shipped_model_need_leave() -> None:
    assert all(voice.free for voice in choose_voices([]))
    assert "toy" not in {voice.name for voice in choose_voices([])}
    with pytest.raises(UsageError, match=r"pavel, arina.*CC BY-NC-ND.*--allow-nc"):
        choose_voices(["anna", "pavel", "arina"])
    assert [voice.name for voice in choose_voices(["anna", "pavel"], allow_nc=True)] == ["anna", "pavel"]
    assert len(choose_voices(["espeak-ng"])) == 16
    assert [voice.name for voice in choose_voices(["espeak-ng+f2"])] == ["espeak-ng+f2"]
    with pytest.raises(UsageError, match=r"unknown voice 'ana'.*anna"):
        choose_voices(["ana"])
