"""Every rule of Whisper decoding against a script: prompts, stamps, retries, guards, words, joins. No model."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding.whisper import Generated, Prompt, Task, WhisperOptions, decode, guards, quality, stamps
from rechka.decoding.whisper import words as timing
from rechka.decoding.whisper.dense import middle_pause
from rechka.decoding.whisper.fallback import Attempt
from rechka.decoding.whisper.kernel import Alignment
from rechka.decoding.whisper.language import follow, vote
from rechka.decoding.whisper.prompt import MAX_HOTWORDS, MAX_PREVIOUS, before, head, language_code
from rechka.decoding.whisper.stitch import border
from rechka.errors import UsageError
from rechka.testing.whisper import Ask, ScriptedKernel, WordCodec, clock
from rechka.types import Word

CODEC = WordCodec()
SPECIAL = CODEC.special
HEAD = head(SPECIAL, language="ru", task="transcribe", multilingual=True)
PROSE = (
    "речка течёт между холмами мимо старой мельницы где по вечерам собираются рыбаки и рассказывают друг другу "
    "длинные истории о лете о больших щуках и о том как однажды весной вода поднялась выше моста и унесла лодку "
    "соседа до самого города хотя никто ему потом не поверил пока он не показал квитанцию"
)


# 3.3 prompts


def test_the_prompt_is_laid_out_as_whisper_expects() -> None:
    hello = tuple(CODEC.encode("привет мир"))
    s = SPECIAL
    assert Prompt((), HEAD, stamps=False).tokens(s) == (s.start, s.languages["ru"], s.transcribe, s.no_stamps)
    assert Prompt((), HEAD, stamps=True).tokens(s) == HEAD
    assert Prompt(hello, HEAD, stamps=True).tokens(s) == (s.previous, *hello, *HEAD)
    assert Prompt((), HEAD, stamps=False, prefix=hello).tokens(s) == (*HEAD, s.no_stamps, *hello)
    assert Prompt((), HEAD, stamps=True, prefix=hello).tokens(s) == (*HEAD, s.stamp(0), *hello)


def test_translation_is_another_token() -> None:
    assert head(SPECIAL, language="ru", task="translate", multilingual=True)[-1] == SPECIAL.translate


def test_an_english_model_takes_no_language() -> None:
    assert head(SPECIAL, language="en", task="transcribe", multilingual=False) == (SPECIAL.start,)
    for language, task in (("ru", "transcribe"), ("en", "translate")):
        with pytest.raises(UsageError, match="writes English only"):
            head(SPECIAL, language=language, task=task, multilingual=False)


def test_languages_have_names_too() -> None:
    assert language_code("Russian", SPECIAL) == language_code(" RU ", SPECIAL) == "ru"
    with pytest.raises(UsageError, match="does not know the language 'xx'"):
        language_code("xx", SPECIAL)


@given(st.integers(0, 500), st.integers(0, 60))
@settings(max_examples=40, deadline=None)
def test_text_before_never_takes_more_than_223_tokens(num_previous: int, num_hotwords: int) -> None:
    previous = CODEC.encode(" ".join(f"слово{i}" for i in range(num_previous)))
    hotwords = [f"имя{i} фамилия отчество" for i in range(num_hotwords)]
    found = before(CODEC, hotwords=hotwords, previous=previous)
    assert len(found) <= MAX_PREVIOUS == 223
    kept = min(num_hotwords, MAX_HOTWORDS // 3)  # whole, the first ones first
    assert CODEC.decode(found).count("фамилия") == kept
    room = MAX_PREVIOUS - 3 * kept
    assert list(found[3 * kept :]) == previous[max(0, len(previous) - room) :]  # the newest


# 3.4 stamps


@pytest.mark.parametrize(
    ("parts", "broken"),
    [
        ((0.0, "да", 1.0), None),
        ((0.0, "да", 1.0, 1.0, "нет", 2.0), None),
        ((0.5, "да", 1.0, 1.4, "нет"), None),
        ((0.0, "да", 1.0, 2.0), None),
        (("да", 1.0), "no stamp at the beginning"),
        ((1.02, "да", 2.0), "later than 1.0 s"),
        ((0.0, "да", 1.0, "нет", 2.0), "single stamp"),
        ((0.0, "да", 1.0, 0.5, "нет", 2.0), "not later"),
        ((0.5, "да", 0.5), "not later"),
        ((0.0, "да", 1.0, 1.0, 1.0, "нет", 2.0), "three stamps in a row"),
    ],
)
def test_rules_of_stamps(parts: tuple[Any, ...], broken: str | None) -> None:
    found = stamps.violations(CODEC.stamped(*parts), SPECIAL)
    assert (not found) if broken is None else any(broken in one for one in found)


def test_the_no_timestamps_token_is_no_stamp() -> None:
    assert stamps.violations((SPECIAL.stamp(0), SPECIAL.no_stamps), SPECIAL) == ["the no-timestamps token among stamps"]


def texts(reading: stamps.Reading) -> list[tuple[float, float, str]]:
    return [(piece.start / 50, piece.end / 50, CODEC.decode(piece.tokens).strip()) for piece in reading.pieces]


def test_windows_are_cut_at_pairs_and_go_on_at_the_last() -> None:
    tokens = CODEC.stamped(0.0, "раз два", 2.0, 2.5, "три", 4.0, 4.0, "неполное")
    reading = stamps.read(tokens, SPECIAL, size=1500)
    assert texts(reading) == [(0.0, 2.0, "раз два"), (2.5, 4.0, "три")]  # the rest is read again by the next window
    assert (reading.advance, reading.complete) == (200, True)


def test_a_single_stamp_at_the_end_means_that_the_window_is_done() -> None:
    reading = stamps.read(CODEC.stamped(0.0, "раз", 2.0, 2.0, "два", 4.0), SPECIAL, size=1500)
    assert texts(reading) == [(0.0, 2.0, "раз"), (2.0, 4.0, "два")]
    assert reading.advance == 1500
    reading = stamps.read(CODEC.stamped(0.4, "раз", 2.0), SPECIAL, size=1500)
    assert texts(reading) == [(0.4, 2.0, "раз")]
    assert reading.advance == 1500


def test_a_text_without_stamps_takes_the_window() -> None:
    reading = stamps.read(CODEC.stamped("раз два"), SPECIAL, size=700)
    assert texts(reading) == [(0.0, 14.0, "раз два")]
    assert reading.advance == 700


def test_a_window_that_nothing_follows_keeps_its_rest() -> None:
    tokens = CODEC.stamped(0.0, "раз", 2.0, 2.5, "два")
    assert texts(stamps.read(tokens, SPECIAL, size=500, final=True)) == [(0.0, 2.0, "раз"), (2.5, 10.0, "два")]


def test_stamps_beyond_the_audio_or_backwards_are_repaired() -> None:
    tokens = CODEC.stamped(0.0, "раз", 25.0, 25.0, "два", 3.0, 3.0)
    reading = stamps.read(tokens, SPECIAL, size=500)
    assert texts(reading) == [(0.0, 10.0, "раз"), (10.0, 10.0, "два")]
    assert 1 <= reading.advance <= 500


def test_a_stamp_of_zero_makes_progress_all_the_same() -> None:
    reading = stamps.read(CODEC.stamped(0.0, "раз", 0.0, 0.0, "два"), SPECIAL, size=1500)
    assert reading.advance == 1500


ANY_TOKENS = st.lists(
    st.one_of(st.integers(0, 5), st.integers(SPECIAL.end, SPECIAL.first_stamp - 1),
              st.integers(0, 1500).map(SPECIAL.stamp), st.just(10**6)), max_size=30,
)  # fmt: skip


@given(ANY_TOKENS, st.integers(1, 1500), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_tokens_are_read(tokens: list[int], size: int, final: bool) -> None:
    """Odd weights write anything; times stay in order and inside, and the window makes progress."""
    CODEC.encode("а б в г д е")
    reading = stamps.read(tokens, SPECIAL, size=size, final=final)
    assert 1 <= reading.advance <= size
    times = [time for piece in reading.pieces for time in (piece.start, piece.end)]
    assert times == sorted(times)
    assert all(0 <= time <= size for time in times)
    assert all(SPECIAL.is_text(token) for piece in reading.pieces for token in piece.tokens)
    said = [token for token in tokens if SPECIAL.is_text(token)]
    kept = [token for piece in reading.pieces for token in piece.tokens]
    assert kept == said[: len(kept)]
    assert not final or kept == said


# 3.6 retries


def options(**changes: Any) -> WhisperOptions:
    return WhisperOptions(**{"mode": "sequential", **changes})


def good(text: str, logprob: float = -0.3, no_speech: float = 0.0, *, truncated: bool = False) -> Generated:
    tokens = tuple(CODEC.encode(text))
    return Generated(tokens, logprob * (len(tokens) + 1), no_speech, truncated)


def one(script: Any, *, given: str = "", **changes: Any) -> tuple[Attempt, ScriptedKernel]:
    kernel = ScriptedKernel(script)
    prompt = Prompt(tuple(CODEC.encode(given)), HEAD, stamps=False)
    task = Task(clock(1.0), prompt, given, "ru")
    [attempt] = decode(kernel, CODEC, [task], options(**changes))
    return attempt, kernel


def test_a_good_text_is_taken_at_once() -> None:
    attempt, kernel = one(lambda ask: good(PROSE))
    assert (attempt.text.strip(), attempt.temperature, attempt.reasons) == (PROSE, 0.0, ())
    assert [call[0].search.temperature for call in kernel.calls] == [0.0]
    assert kernel.calls[0][0].search.beam_size == 5


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (good("речка " * 60), "compression"),
        (good("и вот опять мы тут " * 3), "loop"),
        (good(PROSE, -1.2), "logprob"),
        (good("this is plainly not russian at all"), "language"),
        (Generated(tuple(CODEC.encode("да")), math.nan, 0.0), "logprob"),
        (Generated((), -math.inf, 0.0), "logprob"),
    ],
)
def test_each_doubt_asks_again_at_a_higher_temperature(bad: Generated, reason: str) -> None:
    attempt, kernel = one(lambda ask: good(PROSE) if ask.search.temperature >= 0.4 else bad)
    assert [call[0].search.temperature for call in kernel.calls] == [0.0, 0.2, 0.4]
    assert attempt.temperature == 0.4
    assert not attempt.failed
    first, _ = one(lambda ask: bad, temperatures=(0.0,))
    assert reason in first.reasons
    assert first.failed


def test_silence_is_accepted_only_when_both_say_so() -> None:
    silent, kernel = one(lambda ask: good("субтитры", -1.5, 0.9))
    assert silent.silent
    assert len(kernel.calls) == 1  # no retries for silence
    sure, _ = one(lambda ask: good("да", -0.2, 0.9))
    assert not sure.silent
    assert not sure.reasons  # no-speech alone does not silence a sure text
    unsure, kernel = one(lambda ask: good("да", -1.5, 0.3))
    assert not unsure.silent
    assert len(kernel.calls) == 6


def test_when_all_fail_the_likeliest_that_does_not_repeat_itself_is_taken() -> None:
    def script(ask: Ask) -> Generated:
        return good("речка " * 60, -0.1) if ask.search.temperature < 0.5 else good(PROSE, -1.1 - ask.search.temperature)

    attempt, kernel = one(script)
    assert len(kernel.calls) == 6
    assert attempt.failed
    assert attempt.temperature == 0.6
    assert attempt.text.strip() == PROSE
    looping, _ = one(lambda ask: good("речка " * 60, -0.1 - ask.search.temperature))
    assert looping.failed
    assert looping.temperature == 0.0


def test_temperatures_above_zero_sample() -> None:
    _, kernel = one(lambda ask: good("да", -2.0), temperatures=(0.0, 0.7), best_of=3)
    assert [(c[0].search.temperature, c[0].search.best_of) for c in kernel.calls] == [(0.0, 3), (0.7, 3)]


def test_an_echo_of_the_prompt_is_asked_again_without_it() -> None:
    given = "совещание по бюджету на следующий год"

    def script(ask: Ask) -> Generated:
        return good("совещание по бюджету") if SPECIAL.previous in ask.prompt else good("доброе утро коллеги")

    attempt, kernel = one(script, given=given)
    assert attempt.text == " доброе утро коллеги"
    assert attempt.temperature == 0.0
    assert [call[0].search.temperature for call in kernel.calls] == [0.0, 0.0]
    said, _ = one(lambda ask: good("совещание по бюджету"), given=given)
    assert said.text == " совещание по бюджету"  # also without the prompt: it was said
    assert not said.failed


def test_a_single_try_is_greedy_and_final() -> None:
    kernel = ScriptedKernel(lambda ask: good("да", -3.0))
    [attempt] = decode(kernel, CODEC, [Task(clock(1.0), Prompt((), HEAD, stamps=False), once=True)], options())
    assert len(kernel.calls) == 1
    assert kernel.calls[0][0].search.beam_size == 1
    assert attempt.text == " да"


def test_retries_stay_in_the_batch_and_change_no_other_window() -> None:
    """Ten windows, every third needs two more tries: the results are those of each alone."""

    def script(ask: Ask) -> Generated:
        number = round(ask.start)
        need = 0.4 if number % 3 == 0 else 0.0
        text = f"окно {number} при {ask.search.temperature}"
        return good(text) if ask.search.temperature >= need else good(text, -2.0)

    def tasks() -> list[Task]:
        return [Task(clock(1.0, start=i), Prompt((), HEAD, stamps=False), "", "ru") for i in range(10)]

    kernel = ScriptedKernel(script)
    together = decode(kernel, CODEC, tasks(), options(batch_size=4))
    alone = [decode(ScriptedKernel(script), CODEC, [task], options())[0] for task in tasks()]
    assert together == alone
    assert [len(call) for call in kernel.calls] == [4, 4, 2, 4, 4]  # 0, 3, 6, 9 again at 0.2, then at 0.4
    assert [call[0].search.temperature for call in kernel.calls] == [0.0, 0.0, 0.0, 0.2, 0.4]


def test_windows_share_calls_only_with_prompts_of_the_same_shape() -> None:
    prompts = [Prompt((1,) * n, HEAD, stamps=s) for n in (0, 2) for s in (False, True)] * 2
    CODEC.encode("а б в")
    kernel = ScriptedKernel(lambda ask: good("да"))
    decode(kernel, CODEC, [Task(clock(0.1), prompt) for prompt in prompts], options())
    assert sorted(len(call) for call in kernel.calls) == [2, 2, 2, 2]
    for call in kernel.calls:
        assert len({ask.prompt.index(SPECIAL.start) for ask in call}) == 1
        assert len({SPECIAL.no_stamps in ask.prompt for ask in call}) == 1


# 3.6 repetition, right for Cyrillic


def test_ordinary_russian_is_no_repetition_though_its_utf8_compresses_like_one() -> None:
    """The published limit of 2.4 on UTF-8 re-decodes fluent Russian; on one byte a character it does not."""
    text = " ".join([PROSE, PROSE.replace("река", "озеро").translate(str.maketrans("абв", "гдж"))])
    assert len(text.encode()) / len(zlib.compress(text.encode())) > 1.3 * quality.compression(text)
    assert quality.compression(PROSE) < 1.9
    assert not quality.loops(PROSE)


def test_the_same_text_compresses_the_same_in_any_alphabet() -> None:
    latin = PROSE.translate({ord(c): chr(ord("a") + i % 26) for i, c in enumerate("абвгдежзийклмнопрстуфхцчш")})
    assert quality.compression(latin) == pytest.approx(quality.compression(PROSE), rel=0.15)
    assert quality.compression("") == 0.0
    many = np.random.default_rng(0).permutation(600)  # more characters than bytes have values
    assert quality.compression("".join(chr(0x4E00 + i) for i in many)) < 1.5


@pytest.mark.parametrize(("times", "found"), [(1, False), (2, False), (3, True), (6, True)])
def test_a_phrase_thrice_is_a_loop_whatever_its_ratio(times: int, found: bool) -> None:
    phrase = "и вот что я говорю "
    assert quality.loops(phrase * times) is found
    assert quality.loops(PROSE + " " + phrase * times) is found  # anywhere in a long text
    if times == 3:
        assert quality.compression(phrase * times) < 2.4  # which a ratio alone lets through


def test_words_may_be_said_three_times() -> None:
    assert not quality.loops("нет нет нет я не согласен")
    assert quality.loops("нет нет нет нет нет")
    assert quality.longest_run(["а", "б", "а", "б", "а", "б", "а", "б"]) == (2, 4)
    assert quality.longest_run([]) == (0, 0)


def test_going_in_circles_is_found_without_a_run() -> None:
    lines = ["мы идём домой", "дождь опять", "мы идём домой", "кот спит", "мы идём домой", "дождь опять"]
    circle = " ".join(lines * 4)
    assert quality.distinct(quality.words(circle)) < 0.5
    assert quality.loops(circle)


def test_scripts_without_spaces_are_counted_by_characters() -> None:
    assert quality.words("今天天气") == ["今", "天", "天", "气"]
    assert quality.loops("谢谢观看" * 4)


# 3.6 guards


def around(**changes: Any) -> guards.Surroundings:
    usual = {"speech": 0.9, "after": False, "level_db": -25.0, "loudest_db": -22.0, "no_speech": 0.05, "ctc": None}
    return guards.Surroundings(**{**usual, **changes})


def signs(text: str, seconds: float = 3.0, **changes: Any) -> tuple[str, ...]:
    return guards.signs(text, seconds, around(**changes), max_words_s=7.0, max_no_speech=0.6)


@pytest.mark.parametrize(
    "text",
    ["Субтитры сделал DimaTorzok", "Редактор субтитров А.Семкин Корректор А.Егорова", "Продолжение следует...",
     "Спасибо за просмотр!", "Thanks for watching!"],
)  # fmt: skip
def test_credits_are_a_sign_but_never_enough(text: str) -> None:
    assert signs(text) == ("credits",)
    assert not guards.condemned(signs(text))  # someone says so, loud and clear
    assert guards.condemned(signs(text, speech=0.0))
    assert guards.condemned(signs(text, level_db=-70.0))
    assert guards.condemned(signs(text, no_speech=0.8))
    assert guards.condemned(signs(text, ctc=0.0))


def test_one_kind_of_witness_drops_nothing() -> None:
    assert signs("добрый день", speech=0.0) == ("no speech",)
    assert signs("добрый день", speech=0.0, after=True) == ("no speech", "after speech")
    assert not guards.condemned(signs("добрый день", speech=0.0, after=True))  # a detector misses quiet speech
    assert not guards.condemned(signs("добрый день", no_speech=0.9))
    assert not guards.condemned(signs("добрый день", level_db=-65.0))
    assert guards.condemned(signs("добрый день", speech=0.0, level_db=-65.0))


def test_more_words_than_anyone_speaks() -> None:
    assert signs(PROSE, 30.0) == ()
    assert signs(PROSE, 4.0) == ("fast",)
    assert signs("да нет", 0.1) == ()  # two words prove nothing
    assert guards.condemned(signs(PROSE, 4.0, speech=0.0))


def test_a_text_after_the_last_speech() -> None:
    assert "after speech" in signs("увидимся", after=True)
    assert guards.condemned(signs("увидимся", after=True, no_speech=0.7))


def test_a_loop_where_nobody_speaks() -> None:
    assert guards.condemned(signs("ага ага ага ага ага ага", speech=0.05))


def test_quiet_is_measured_against_the_loudest() -> None:
    assert "quiet" in signs("да", level_db=-55.0, loudest_db=-20.0)
    assert "quiet" not in signs("да", level_db=-55.0, loudest_db=-45.0)  # a quiet recording on the whole


def test_without_a_detector_it_says_nothing() -> None:
    assert signs("добрый день", speech=None, after=True) == ()


def timed(*parts: tuple[str, float, float, float]) -> list[Word]:
    return [Word(text, start, end, p) for text, start, end, p in parts]


def test_anomalous_words() -> None:
    assert guards.anomaly(Word("да", 0.0, 0.4, 0.9)) == 0.0
    assert guards.anomaly(Word("да", 0.0, 0.4, 0.1)) == 1.0
    assert guards.anomaly(Word("да", 0.0, 0.033, 0.9)) == pytest.approx(1.5)
    assert guards.anomaly(Word("да", 0.0, 3.0, 0.9)) == pytest.approx(1.0)
    assert guards.anomalous(timed(("раз", 0.0, 0.4, 0.1), ("два", 0.4, 0.8, 0.1)))  # each of a few
    assert not guards.anomalous(timed(("раз", 0.0, 0.4, 0.1), ("два", 0.4, 0.8, 0.9)))
    assert not guards.anomalous(timed(("...", 0.0, 0.01, 0.01)))  # punctuation does not count


def test_anomalous_segments_between_pauses_are_dropped() -> None:
    sound = timed(("добрый", 5.0, 5.5, 0.9), ("день", 5.5, 6.0, 0.9))
    odd = timed(("амара", 12.0, 12.02, 0.05), ("орг", 12.02, 12.04, 0.05))
    later = timed(("коллеги", 20.0, 20.6, 0.9))
    drop = {"size": 30.0, "silence": 2.0, "before": 0.0}
    assert guards.isolated([sound, odd, later], **drop) == [1]
    assert guards.isolated([sound, later], **drop) == []
    near = timed(("амара", 6.1, 6.12, 0.05), ("орг", 6.12, 6.14, 0.05))
    assert guards.isolated([sound, near, later], **drop) == []  # no pause before it
    assert guards.isolated([odd], size=13.0, silence=2.0, before=math.inf) == [0]  # the window ends soon after


# 3.6 language


def test_windows_vote_on_the_language_by_their_weight() -> None:
    windows = [({"ru": 0.6, "uk": 0.4}, 5.0), ({"uk": 0.7, "ru": 0.3}, 1.0), ({"ru": 0.6, "uk": 0.4}, 5.0)]
    code, probability = vote(windows)
    assert code == "ru"
    assert probability == pytest.approx((0.6 * 5 + 0.3 + 0.6 * 5) / 11)
    assert vote([({"uk": 0.7, "ru": 0.2, "en": 0.1}, 1.0)], ("ru", "en"))[0] == "ru"  # among those allowed
    assert vote([]) == ("", 0.0)


def test_another_language_in_the_middle_must_be_likely() -> None:
    assert follow({"en": 0.6, "ru": 0.4}, "ru") == "ru"
    assert follow({"en": 0.8, "ru": 0.2}, "ru") == "en"
    assert follow({"en": 0.8, "ru": 0.15, "uk": 0.05}, "ru", ("ru", "uk")) == "ru"


def test_a_text_in_the_wrong_letters() -> None:
    assert quality.foreign("this is plainly english", "ru")
    assert not quality.foreign("мы купили iPhone и MacBook", "ru")
    assert not quality.foreign("OK", "ru")  # too short to tell
    assert not quality.foreign("this is plainly english", "en")


# 3.7 words


def test_words_are_tokens_up_to_the_next_space_with_their_marks() -> None:
    tokens = CODEC.encode("Привет , мир « вот » так - то .")
    found = timing.split(CODEC, tokens, "ru")
    assert [piece.text for piece in found] == ["Привет ,", "мир", "« вот »", "так -", "то ."]
    assert [(piece.first, piece.last) for piece in found] == [(0, 2), (2, 3), (3, 6), (6, 8), (8, 10)]
    assert " ".join(piece.text for piece in found) == CODEC.decode(tokens).strip()


class ByteCodec(WordCodec):
    """Every byte is a token, as in the worst case of a byte-level vocabulary."""

    def decode(self, ids: Any) -> str:
        return bytes(ids).decode("utf-8", "replace")


@given(st.text(st.characters(codec="utf-8"), max_size=20))
@settings(max_examples=100, deadline=None)
def test_characters_spread_over_tokens_stay_together(text: str) -> None:
    codec = ByteCodec()
    tokens = list(text.encode())
    found = timing.split(codec, tokens, "ru")
    assert "".join("".join(piece.text.split()) for piece in found) == "".join(text.split())
    bounds = [bound for piece in found for bound in (piece.first, piece.last)]
    assert bounds == sorted(bounds)


def test_languages_without_spaces_have_words_of_one_character() -> None:
    codec = ByteCodec()
    assert [piece.text for piece in timing.split(codec, list("今天好。".encode()), "zh")] == ["今", "天", "好。"]


def test_word_times_come_from_the_positions_of_their_tokens() -> None:
    pieces = timing.split(CODEC, CODEC.encode("раз два три"), "ru")
    words = timing.timed(pieces, Alignment((0, 25, 40, 75), (0.9, 0.5, 0.25)), end=10.0)
    assert [(w.text, w.start, w.end) for w in words] == [("раз", 0.0, 0.5), ("два", 0.5, 0.8), ("три", 0.8, 1.5)]
    assert [w.confidence for w in words] == pytest.approx([0.9, 0.5, 0.25])
    assert all(type(w.start) is float and type(w.confidence) is float for w in words)


def test_word_times_are_repaired() -> None:
    pieces = timing.split(CODEC, CODEC.encode("раз два три"), "ru")
    words = timing.timed(pieces, Alignment((30, 10, 900, 5), (0.9, math.nan, 0.0)), end=2.0)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= 2.0
    assert [word.confidence for word in words[1:]] == [0.0, 0.0]
    assert timing.timed(pieces, Alignment((), ()), end=1.0)[0].confidence == 0.0


def test_long_words_at_the_ends_of_sentences_lose_their_pause() -> None:
    words = timed(("раз", 0.0, 0.4, 1), ("два.", 0.4, 3.4, 1), ("Три", 3.4, 5.0, 1), ("пять", 5.0, 5.4, 1))
    found = timing.shortened([*words, *timed(("шесть", 5.4, 5.8, 1), ("семь", 5.8, 6.2, 1))])
    assert (found[1].start, found[1].end) == (0.4, pytest.approx(1.2))
    assert (found[2].start, found[2].end) == (pytest.approx(4.2), 5.0)
    assert found[3] == words[3]
    typical = timing.shortened(timed(("а", 0.0, 2.0, 1), ("б.", 2.0, 5.0, 1)))
    assert typical[1].end == pytest.approx(2.0 + 2 * 0.7)  # the median counts as 0.7 s at most


def test_words_without_positions_share_the_time() -> None:
    words = timing.spread("раз четыре", 1.0, 12.0)
    assert [(w.text, w.confidence) for w in words] == [("раз", None), ("четыре", None)]
    assert (words[0].start, words[0].end, words[1].end) == (1.0, pytest.approx(5.0), 12.0)
    assert timing.spread("", 0.0, 1.0) == []


# 3.5 joins


def spoken(text: str, start: float, gap: float = 0.5) -> list[Word]:
    return [Word(w, start + i * gap, start + (i + 1) * gap, 0.9) for i, w in enumerate(text.split())]


def test_overlapping_texts_are_joined_at_their_longest_common_run() -> None:
    first = spoken("а б в г д е ж зз", 20.0)
    second = spoken("бв г д е ж з и к", 20.9)
    kept, gone = border(first, second, (20.0, 25.0))
    joined = [w.text for w in first[:kept]] + [w.text for w in second[gone:]]
    assert joined == ["а", "б", "в", "г", "д", "е", "ж", "з", "и", "к"]


def test_without_common_words_the_middle_is_the_border() -> None:
    first, second = spoken("а б в г", 20.0), spoken("д е ж з", 20.2)
    assert border(first, second, (20.0, 22.0)) == (2, 2)


def test_a_side_that_heard_nothing_takes_nothing_away() -> None:
    assert border([], spoken("а б", 20.0), (20.0, 25.0)) == (0, 0)
    assert border(spoken("а б", 20.0), [], (20.0, 25.0)) == (2, 0)


def test_the_same_words_at_another_time_are_other_words() -> None:
    first, second = spoken("да да", 20.0), spoken("да да", 23.0)
    kept, gone = border(first, second, (20.0, 25.0))
    assert (kept, gone) == (2, 0)


@given(st.integers(20, 60), st.floats(0, 0.4), st.floats(2, 10), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_no_word_is_lost_or_said_twice(num: int, shift: float, overlap: float, seed: int) -> None:
    """Two hearings of one recording, times off by up to 0.4 s: the joined text is the text."""
    random = np.random.default_rng(seed)
    whole = spoken(" ".join(f"слово{i}" for i in range(num)), 0.0)
    cut = num / 4
    first = [w for w in whole if w.end <= cut + overlap / 2]
    second = [w for w in whole if w.start >= cut - overlap / 2]
    moved = [Word(w.text, *(t + shift * random.uniform(-1, 1) for t in (w.start, w.end)), 0.9) for w in second]
    kept, gone = border(first, moved, (cut - overlap / 2, cut + overlap / 2))
    assert [w.text for w in [*first[:kept], *moved[gone:]]] == [w.text for w in whole]


# 3.2 windows that hold too much


def test_a_dense_window_is_divided_in_the_pause_near_its_middle() -> None:
    audio = clock(20.0)
    for first, last in ((3.0, 3.5), (11.0, 11.3), (18.0, 18.5)):
        audio[round(first * 16000) : round(last * 16000)] = 0.0
    cut = middle_pause(audio, 16000)
    assert cut is not None
    assert 11.0 <= cut / 16000 <= 11.3
    assert middle_pause(audio[: 3 * 16000], 16000) is None  # nobody says so much in three seconds


# options


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "fast"}, {"task": "sing"}, {"beam_size": 0}, {"temperatures": ()}, {"temperatures": (3.0,)},
     {"max_new": 300}, {"chunk_s": 40.0}, {"stride_s": 15.0}, {"vad": "none", "mode": "packed"}, {"partial_s": 0.0},
     {"guard_silence_s": 2.0, "word_times": False}, {"commit": "never"}, {"vad": "other"}],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        WhisperOptions(**wrong)


def test_options_from_plain_values() -> None:
    found = WhisperOptions.parse(
        {"temperatures": [0, 0.5], "languages": ["ru", "en"], "min_logprob": -2, "stamps": True}
    )
    assert found.temperatures == (0.0, 0.5)
    assert found.languages == ("ru", "en")
    assert found.min_logprob == -2.0
    for wrong in ({"tempo": 1}, {"beam_size": "5"}, {"beam_size": True}, {"languages": "ru"}, {"stamps": "yes"}):
        with pytest.raises(UsageError):
            WhisperOptions.parse(wrong)
