"""Prompts, languages, words and their times, joins, and where a dense window is divided."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.decoding.whisper import Alignment, Prompt, Special
from rechka.decoding.whisper.dense import middle_pause
from rechka.decoding.whisper.language import follow, vote
from rechka.decoding.whisper.prompt import MAX_HOTWORDS, MAX_PREVIOUS, before, head, language_code
from rechka.decoding.whisper.stitch import border
from rechka.decoding.whisper.words import confidence, shortened, split, spread, timed
from rechka.errors import UsageError
from rechka.testing.whisper import WordCodec
from rechka.types import Word

CODEC = WordCodec()
SPECIAL = CODEC.special


class Bytes:
    """One token per byte: what byte-level BPE comes down to."""

    special: Special = SPECIAL

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: object) -> str:
        return bytes(ids).decode("utf-8", "replace")  # type: ignore[call-overload, no-any-return]


# prompts


def test_the_layout_of_a_prompt() -> None:
    start = head(SPECIAL, language="ru", task="transcribe", multilingual=True)
    assert start == (SPECIAL.start, SPECIAL.languages["ru"], SPECIAL.transcribe)
    assert Prompt((), start, True).tokens(SPECIAL) == start
    assert Prompt((), start, False).tokens(SPECIAL) == (*start, SPECIAL.no_stamps)
    assert Prompt((7, 8), start, True).tokens(SPECIAL) == (SPECIAL.previous, 7, 8, *start)
    assert Prompt((), start, True, (5,)).tokens(SPECIAL) == (*start, SPECIAL.stamp(0), 5)
    assert Prompt((7,), start, False, (5,)).tokens(SPECIAL) == (SPECIAL.previous, 7, *start, SPECIAL.no_stamps, 5)


def test_translation_names_of_languages_and_english_models() -> None:
    assert head(SPECIAL, language="Russian", task="translate", multilingual=True)[1:] == (
        SPECIAL.languages["ru"], SPECIAL.translate,
    )  # fmt: skip
    assert language_code(" русский ", SPECIAL) == "ru"
    assert head(SPECIAL, language="", task="transcribe", multilingual=False) == (SPECIAL.start,)
    with pytest.raises(UsageError, match="English only"):
        head(SPECIAL, language="ru", task="transcribe", multilingual=False)
    with pytest.raises(UsageError, match=r"does not know the language 'xx'.*it knows"):
        head(SPECIAL, language="xx", task="transcribe", multilingual=True)


def test_at_most_223_tokens_before_the_newest_of_the_text() -> None:
    text = CODEC.encode(" ".join(f"слово{i}" for i in range(300)))
    assert before(CODEC, previous=text) == tuple(text[-MAX_PREVIOUS:])
    assert MAX_PREVIOUS == 223
    with_stamps = [SPECIAL.stamp(0), *text[:3], SPECIAL.stamp(100)]
    assert before(CODEC, previous=with_stamps) == tuple(text[:3])
    assert before(CODEC) == ()


def test_hotwords_stand_first_and_leave_half_of_the_room() -> None:
    words = [f"имя{i}" for i in range(200)]
    text = CODEC.encode(" ".join(f"слово{i}" for i in range(300)))
    found = before(CODEC, hotwords=words, previous=text)
    assert len(found) == MAX_PREVIOUS
    assert CODEC.decode(found[:MAX_HOTWORDS]).strip() == ", ".join(words[:MAX_HOTWORDS])
    assert list(found[MAX_HOTWORDS:]) == text[-(MAX_PREVIOUS - MAX_HOTWORDS) :]
    assert before(CODEC, hotwords=["слово " * 200]) == ()  # one that does not fit is left out whole


@given(st.integers(0, 500), st.integers(0, 60))
def test_text_before_never_takes_more_than_223_tokens(num_previous: int, num_hotwords: int) -> None:
    previous = CODEC.encode(" ".join(f"слово{i}" for i in range(num_previous)))
    hotwords = [f"имя{i} фамилия отчество" for i in range(num_hotwords)]
    found = before(CODEC, hotwords=hotwords, previous=previous)
    assert len(found) <= MAX_PREVIOUS == 223
    kept = min(num_hotwords, MAX_HOTWORDS // 3)  # whole, the first ones first
    assert CODEC.decode(found).count("фамилия") == kept
    room = MAX_PREVIOUS - 3 * kept
    assert list(found[3 * kept :]) == previous[max(0, len(previous) - room) :]  # the newest


def test_thousands_of_hotwords_cost_no_more_than_those_that_can_fit() -> None:
    class Counting(WordCodec):
        encoded = 0

        def encode(self, text: str) -> list[int]:
            self.encoded += len(text)
            return super().encode(text)

    codec = Counting()
    words = [f"имя{i}" for i in range(20000)]
    assert len(before(codec, hotwords=words)) == MAX_HOTWORDS
    assert codec.encoded < 12 * MAX_HOTWORDS


# languages


def test_windows_vote_by_weight_and_within_the_list() -> None:
    windows = [({"ru": 0.9, "uk": 0.1}, 20.0), ({"ru": 0.2, "uk": 0.8}, 5.0)]
    assert vote(windows)[0] == "ru"
    assert vote([(*windows[0][0:1], 1.0), (*windows[1][0:1], 20.0)])[0] == "uk"
    assert vote([({"en": 0.6, "ru": 0.3, "de": 0.1}, 1.0)], ["ru", "de"]) == ("ru", pytest.approx(0.75))
    assert vote([]) == ("", 0.0)
    assert vote([({"en": 1.0}, 1.0)], ["ru"]) == ("", 0.0)


def test_a_flip_inside_a_recording_needs_to_be_likely() -> None:
    assert follow({"en": 0.6, "ru": 0.4}, "ru") == "ru"
    assert follow({"en": 0.9, "ru": 0.1}, "ru") == "en"
    assert follow({"en": 0.9, "ru": 0.1}, "ru", ["ru", "uk"]) == "ru"
    assert follow({}, "ru") == "ru"


# words


def texts(text: str, language: str = "ru") -> list[str]:
    codec = Bytes()
    return [piece.text for piece in split(codec, codec.encode(text), language)]


@pytest.mark.parametrize(
    ("text", "language", "found"),
    [
        (" Привет, мир!", "ru", ["Привет,", "мир!"]),
        (" Он сказал: «да» и ушёл…", "ru", ["Он", "сказал:", "«да»", "и", "ушёл…"]),
        (" кто-то — пришёл", "ru", ["кто-то —", "пришёл"]),
        (" 25% от 1 000 ₽", "ru", ["25%", "от", "1", "000 ₽"]),
        (" « да", "ru", ["« да"]),
        ("今日は。", "ja", ["今", "日", "は。"]),
        (" ...", "ru", ["..."]),
        ("", "ru", []),
    ],
)
def test_tokens_as_words(text: str, language: str, found: list[str]) -> None:
    assert texts(text, language) == found


@given(st.text(max_size=40))
def test_no_letter_is_lost_or_doubled(text: str) -> None:
    pieces = split(Bytes(), Bytes().encode(text.encode("utf-8", "replace").decode()), "ru")
    joined = "".join("".join(piece.text for piece in pieces).split())
    spoken = "".join(text.encode("utf-8", "replace").decode().split())
    assert joined == spoken or not any(char.isalnum() for char in spoken)


@given(st.lists(st.integers(0, 255), max_size=40))
def test_bytes_that_are_no_text_survive(ids: list[int]) -> None:
    pieces = split(Bytes(), ids, "ru")
    assert all(0 <= one.first < one.last <= len(ids) for one in pieces)
    assert all(a.last <= b.first for a, b in itertools.pairwise(pieces))


def test_times_of_words_from_positions_of_tokens() -> None:
    codec = Bytes()
    text = " да нет"
    ids = codec.encode(text)
    pieces = split(codec, ids, "ru")
    frames = tuple(range(0, 5 * (len(ids) + 1), 5))
    words = timed(pieces, Alignment(frames, (0.5,) * len(ids)), end=30.0)
    # Five positions (0.1 s) a byte; a space and two letters, a space and three.
    assert [(word.text, round(word.start, 3), round(word.end, 3)) for word in words] == [
        ("да", 0.0, 0.5), ("нет", 0.5, 1.2),
    ]  # fmt: skip
    assert [word.confidence for word in words] == [pytest.approx(0.5)] * 2


@given(st.lists(st.integers(-5, 3000), min_size=9, max_size=9), st.floats(0.1, 30.0))
def test_times_are_in_order_and_inside(frames: list[int], end: float) -> None:
    codec = Bytes()
    ids = codec.encode("да нет ?"[:5])
    pieces = split(codec, ids, "ru")
    words = timed(pieces, Alignment(tuple(frames[: len(ids) + 1]), (0.9,) * len(ids)), end=end)
    clock = 0.0
    for word in words:
        assert clock <= word.start <= word.end <= end
        clock = word.end


def test_confidence_is_the_geometric_mean() -> None:
    assert confidence([0.25, 1.0]) == pytest.approx(0.5)
    assert confidence([]) == 0.0
    assert confidence([0.5, 0.0]) == 0.0
    assert confidence([float("nan")]) == 0.0


def test_words_beside_the_end_of_a_sentence_are_not_longer_than_twice_the_median() -> None:
    usual = [Word("слово", i * 0.4, i * 0.4 + 0.4) for i in range(6)]
    long = Word("конец.", 2.4, 6.0)
    after = Word("Потом", 6.0, 9.0)
    found = shortened([*usual, long, after, *(Word("и", 9.0 + i * 0.4, 9.4 + i * 0.4) for i in range(4))])
    assert (found[6].start, found[6].end) == (2.4, pytest.approx(3.2))
    assert (found[7].start, found[7].end) == (pytest.approx(8.2), 9.0)
    middle = shortened([*usual, Word("долго", 2.4, 6.0), *usual[:1]])
    assert middle[6].end == 6.0  # inside a sentence it may be drawled


def test_the_first_word_loses_the_silence_before_it_not_its_end() -> None:
    """The path through the attention begins at the first token whatever comes before the word."""
    found = shortened([Word("Да.", 0.0, 5.0), *(Word("и", 5.0 + i * 0.4, 5.4 + i * 0.4) for i in range(4))])
    assert (found[0].start, found[0].end) == (pytest.approx(4.2), 5.0)
    [alone] = shortened([Word("Да.", 0.0, 5.0)])
    assert (alone.start, alone.end) == (pytest.approx(5.0 - 1.4), 5.0)


def test_the_median_is_taken_to_be_at_most_seven_tenths() -> None:
    found = shortened([Word("тянет", i * 3.0, i * 3.0 + 3.0) for i in range(2)] + [Word("конец.", 6.0, 12.0)])
    assert found[2].end == pytest.approx(6.0 + 1.4)


def test_words_without_places_share_the_time_by_length() -> None:
    words = spread("да конечно", 1.0, 2.1)
    assert [(word.text, word.start, word.end) for word in words] == [
        ("да", 1.0, pytest.approx(1.3)), ("конечно", pytest.approx(1.3), pytest.approx(2.1)),
    ]  # fmt: skip
    assert spread("", 0.0, 1.0) == []


# joins


def line(text: str, start: float, step: float = 0.5) -> list[Word]:
    return [Word(one, start + i * step, start + i * step + step) for i, one in enumerate(text.split())]


def joined(first: list[Word], second: list[Word], overlap: tuple[float, float]) -> str:
    kept, gone = border(first, second, overlap)
    return " ".join(word.text for word in [*first[:kept], *second[gone:]])


def test_words_that_both_heard_are_said_once() -> None:
    first = line("мы вышли из дома рано утром", 25.0)
    second = line("из дома рано утром и пошли", 26.0)
    assert joined(first, second, (26.0, 28.0)) == "мы вышли из дома рано утром и пошли"


def test_cut_words_at_either_edge_are_replaced_by_whole_ones() -> None:
    first = line("мы вышли из дома рано ут", 25.0)
    second = line("шли из дома рано утром и", 25.5)
    assert joined(first, second, (25.5, 28.0)) == "мы вышли из дома рано утром и"


def test_the_same_phrase_said_twice_stays_twice() -> None:
    first = line("спасибо большое", 20.0)
    second = line("спасибо большое до свидания", 26.0)
    assert joined(first, second, (20.0, 30.0)) == "спасибо большое спасибо большое до свидания"


def test_without_common_words_the_middle_is_the_border() -> None:
    first, second = line("раз два три четыре", 26.0), line("пять шесть семь восемь", 26.0)
    assert joined(first, second, (26.0, 28.0)) == "раз два семь восемь"


def test_nothing_on_one_side() -> None:
    assert joined([], line("раз два", 27.5), (26.0, 28.0)) == "раз два"
    assert joined(line("раз два", 25.5), [], (26.0, 28.0)) == "раз два"


@given(st.integers(5, 40), st.integers(3, 20), st.floats(-0.2, 0.2))
def test_a_text_of_distinct_words_is_put_together_again(size: int, width: int, shift: float) -> None:
    words = line(" ".join(f"слово{i}" for i in range(size)), 0.0)
    cut = size // 2
    first = words[: cut + width // 2]
    second = [Word(w.text, w.start + shift, w.end + shift) for w in words[max(0, cut - width // 2) :]]
    overlap = (words[max(0, cut - width // 2)].start, first[-1].end)
    assert joined(first, second, overlap) == " ".join(word.text for word in words)


# dense windows


def test_a_dense_window_is_divided_at_the_pause_in_its_middle() -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(30 * 16000)).astype(np.float32)
    samples[2 * 16000 : 5 * 16000] = 0  # a longer pause, but not in the middle third
    samples[round(13.0 * 16000) : round(13.4 * 16000)] *= 0.01
    cut = middle_pause(samples, 16000)
    assert cut is not None
    assert 13.05 * 16000 < cut < 13.35 * 16000
    assert middle_pause(samples[: 3 * 16000], 16000) is None
