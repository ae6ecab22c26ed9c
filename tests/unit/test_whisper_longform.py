"""Recordings of any length through the Whisper recogniser, the model being a script: every mode, every guard."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding.whisper import Generated, WhisperOptions
from rechka.errors import IncompatibleParts, UsageError
from rechka.models.whisper import WhisperModel
from rechka.recognizers.two_pass import as_reader
from rechka.recognizers.whisper import WhisperAsr, WhisperRecognizer
from rechka.testing.whisper import Ask, ScriptedKernel, WordCodec, clock
from rechka.types import F32, Event, Final, Partial, Refined, Segment, SpeechEnd, SpeechStart

CODEC = WordCodec()
SPECIAL = CODEC.special
RATE = 16000


class LevelVad:
    """Speech is what is louder than a threshold; one window of 32 ms at a time."""

    sample_rate, window = RATE, 512

    def __init__(self, least: float = 0.01) -> None:
        self.least = least

    def initial_state(self) -> F32:
        return np.zeros(0, np.float32)

    def step(self, audio: Sequence[F32], states: Sequence[F32]) -> tuple[list[F32], list[F32]]:
        out, rest = [], []
        for samples, state in zip(audio, states, strict=True):
            joined = np.concatenate([state, samples])
            whole = len(joined) // 512 * 512
            out.append((np.abs(joined[:whole].reshape(-1, 512)).max(axis=1) > self.least).astype(np.float32))
            rest.append(joined[whole:])
        return out, rest


def number_words(ask: Ask) -> list[tuple[int, str]]:
    """A speaker who says one number a second: those that are whole in the window and not silent."""
    first = int(np.ceil(round(ask.start, 3)))
    last = int(np.floor(round(ask.start + ask.seconds, 3)))
    found = []
    for second in range(first, last):
        at = round((second + 0.5 - ask.start) * RATE)
        if np.abs(ask.audio[at : at + 200]).max() > 0.01:
            found.append((second, f"ч{second}"))
    return found


def told(audio: F32) -> tuple[Any, Any]:
    """The time, seconds, at the beginning of every 20 ms of audio from ``clock``, and whether it is loud there."""
    whole = audio[: len(audio) // 320 * 320].reshape(-1, 320).astype(np.float64)
    return np.round((whole[:, 0] - np.round(whole[:, 0], 3)) * 1e7) / 10, np.abs(whole).max(axis=1) > 0.01


def packed_counting(ask: Ask) -> Generated:
    """Numbers of whichever seconds are in a packed window: those whose middle can be heard."""
    times, loud = told(ask.audio)
    seconds = sorted({int(time) for time in times[loud] if time == int(time) + 0.5})
    return says(" ".join(f"ч{second}" for second in seconds))


def says(text: str, *, logprob: float = -0.2, no_speech: float = 0.0, truncated: bool = False) -> Generated:
    tokens = tuple(CODEC.encode(text))
    return Generated(tokens, logprob * (len(tokens) + 1), no_speech, truncated)


def stamped(*parts: str | float, logprob: float = -0.2, truncated: bool = False, no_speech: float = 0.0) -> Generated:
    tokens = CODEC.stamped(*parts)
    return Generated(tokens, logprob * (len(tokens) + 1), no_speech, truncated)


def counting(ask: Ask) -> Generated:
    """The numbers, with stamps if the prompt wants them; the last one without its end if the audio goes on."""
    words = number_words(ask)
    if SPECIAL.no_stamps in ask.prompt:
        return says(" ".join(word for _, word in words))
    parts: list[str | float] = []
    for second, word in words:
        parts += [second - ask.start, word, second + 1 - ask.start]
    return stamped(*parts)


def make(script: Callable[[Ask], Generated] = counting, *, least: float = 0.01, **options: Any) -> Any:
    kernel = ScriptedKernel(script, languages=options.pop("languages_of", lambda audio: {"ru": 0.9, "en": 0.1}))
    kernel.places = options.pop("places", None)
    settings_ = WhisperOptions(**{"language": "ru", **options})
    recognizer = WhisperRecognizer(WhisperModel(kernel, CODEC, settings_), vad=LevelVad(least))
    return recognizer, kernel


def run(
    recognizer: WhisperRecognizer, audio: F32, *, partials: bool = False, pieces: Sequence[int] = (), **open_: Any
) -> tuple[list[Event], Any]:
    stream = recognizer.open(partials=partials, limit_s=None, **open_)
    events: list[Event] = []
    at = 0
    for size in [*pieces, len(audio)]:
        stream.feed(audio[at : at + size])
        at += size
        recognizer.run([stream])
        events += stream.take()
    stream.finish()
    recognizer.run([stream])
    return events + stream.take(), stream


def segments(events: Sequence[Event]) -> list[Segment]:
    return [event.segment for event in events if isinstance(event, Final)]


def hush(audio: F32, first: float, last: float) -> None:
    """A pause in audio from ``clock``."""
    audio[round(first * RATE) : round(last * RATE)] = clock(last - first, start=first, level=0.0)


def text(events: Sequence[Event]) -> str:
    return " ".join(segment.text for segment in segments(events))


def numbers(first: int, last: int) -> str:
    return " ".join(f"ч{i}" for i in range(first, last))


def starts(kernel: ScriptedKernel) -> list[float]:
    return [round(ask.start, 2) for call in kernel.calls for ask in call]


# sequential


def test_sequential_goes_on_at_the_last_complete_stamp() -> None:
    def script(ask: Ask) -> Generated:
        words = number_words(ask)
        if ask.start + ask.seconds >= 70:
            return counting(ask)
        parts: list[str | float] = []
        for second, word in words[:-2]:
            parts += [second - ask.start, word, second + 1 - ask.start]
        return stamped(*parts, parts[-1], "начало")  # the last two seconds hold the beginning of a sentence

    recognizer, kernel = make(script, mode="sequential", word_times=False)
    events, _ = run(recognizer, clock(70.0))
    assert text(events) == numbers(0, 70)
    assert starts(kernel) == [0.0, 28.0, 56.0]
    assert [(s.start, s.end) for s in segments(events)] == [(i, i + 1) for i in range(70)]


def test_a_single_stamp_at_the_end_skips_the_rest_of_the_window() -> None:
    def script(ask: Ask) -> Generated:
        return stamped(0.0, "слово", 4.0)

    recognizer, kernel = make(script, mode="sequential")
    run(recognizer, clock(75.0))
    assert starts(kernel) == [0.0, 30.0, 60.0]


def test_the_text_before_is_the_prompt() -> None:
    recognizer, kernel = make(mode="sequential", prompt="начало", hotwords=("речка",))
    run(recognizer, clock(70.0))
    prompts = [CODEC.decode([t for t in ask.prompt if SPECIAL.is_text(t)]) for call in kernel.calls for ask in call]
    assert prompts[0] == " речка начало"
    assert prompts[1] == f" речка начало {numbers(0, 30)}"
    recognizer, kernel = make(mode="sequential", prompt="начало", use_previous=False)
    run(recognizer, clock(70.0))
    prompts = [CODEC.decode([t for t in ask.prompt if SPECIAL.is_text(t)]) for call in kernel.calls for ask in call]
    assert prompts == [" начало"] * 3


@pytest.mark.parametrize(("least", "kept"), [(0.2, True), (0.6, False), (9.0, False)])
def test_text_from_a_high_temperature_is_no_prompt(least: float, *, kept: bool) -> None:
    """Above 0.5, and when all temperatures failed."""

    def script(ask: Ask) -> Generated:
        found = counting(ask)
        poor = ask.start == 0.0 and ask.search.temperature < least
        return Generated(found.tokens, -3.0 * len(found.tokens), 0.0) if poor else found

    recognizer, kernel = make(script, mode="sequential", prompt="начало")
    run(recognizer, clock(40.0))
    second = kernel.calls[-1][0].prompt
    said = CODEC.decode([t for t in second if SPECIAL.is_text(t)])
    assert said == (f" начало {numbers(0, 30)}" if kept else " начало")


def test_a_window_that_is_silent_gives_nothing() -> None:
    recognizer, kernel = make(lambda ask: stamped(0.0, "Субтитры", 2.0, logprob=-1.5, no_speech=0.9), mode="sequential")
    events, _ = run(recognizer, clock(45.0))
    assert events == []
    assert len(kernel.calls) == 2


# windows that hold too much


def dense(ask: Ask) -> Generated:
    """Two words a second; no more than 24 fit into a window."""
    said = CODEC.decode(packed_counting(ask).tokens).split()
    words = [one for word in said for one in (word, f"и{word}")]
    return says(" ".join(words[:24]), truncated=len(words) > 24)


def doubled(first: int, last: int) -> str:
    return " ".join(f"ч{i} ич{i}" for i in range(first, last))


@pytest.mark.parametrize("mode", ["packed", "chunked"])
def test_a_window_that_hits_the_limit_of_tokens_is_divided(mode: str) -> None:
    audio = clock(29.0)
    for second in (5, 10, 14, 19, 24):  # pauses at whole seconds, too short for the VAD
        hush(audio, second - 0.06, second + 0.06)
    recognizer, kernel = make(dense, mode=mode, look_again=False)
    events, _ = run(recognizer, audio)
    assert text(events) == doubled(0, 29)
    assert max(ask.seconds for ask in kernel.calls[-1]) < 15
    assert not any(segment.labels.get("truncated") for segment in segments(events))


def test_a_dense_window_with_stamps_is_divided_only_where_no_stamp_helps() -> None:
    def script(ask: Ask) -> Generated:
        words = number_words(ask)
        parts: list[str | float] = []
        for second, word in words[:8]:
            parts += [second - ask.start, word, second + 1 - ask.start]
        return stamped(*parts, "и", truncated=len(words) > 8)

    recognizer, kernel = make(script, mode="sequential")
    events, _ = run(recognizer, clock(29.0))
    said = [word for word in text(events).split() if word != "и"]
    assert " ".join(said) == numbers(0, 29)
    assert len({round(ask.start + ask.seconds) for call in kernel.calls for ask in call}) == 1  # none was divided

    audio = clock(20.0)
    hush(audio, 9.94, 10.06)

    def flat(ask: Ask) -> Generated:
        return stamped(0.0, CODEC.decode(packed_counting(ask).tokens), truncated=ask.seconds > 12)

    recognizer, kernel = make(flat, mode="sequential")
    events, _ = run(recognizer, audio)
    assert text(events) == numbers(0, 20)
    assert starts(kernel) == [0.0, 0.0, 9.9]  # divided in the pause


def test_a_loop_that_fills_a_window_is_not_divided() -> None:
    recognizer, kernel = make(lambda ask: says("да и вот " * 70, truncated=True), mode="packed", temperatures=(0.0,))
    events, _ = run(recognizer, clock(20.0))
    assert len(kernel.calls) == 1
    [segment] = segments(events)
    assert segment.labels["truncated"]
    assert "loop" in segment.labels["doubts"]


@pytest.mark.parametrize("mode", ["packed", "chunked"])
@pytest.mark.parametrize("batch", [1, 4])
def test_stamps_in_windows_that_none_follows_lose_nothing(mode: str, batch: int) -> None:
    """What lies behind the last pair is read on within the window, and text without an end is kept."""

    def script(ask: Ask) -> Generated:
        times, loud = told(ask.audio)
        middles = [i for i in np.flatnonzero(loud) if i and times[i] == int(times[i]) + 0.5 and times[i - 1] < times[i]]
        parts: list[str | float] = []
        for i in middles[:10]:
            parts += [max(0.0, i * 0.02 - 0.3), f"ч{int(times[i])}", i * 0.02 + 0.3]
        if len(middles) <= 10:
            return stamped(*parts[:-1])  # the last one has no end
        return stamped(*parts, parts[-1], truncated=len(middles) > 20)

    recognizer, kernel = make(script, mode=mode, stamps=True, look_again=False, batch_size=batch, places=at_their_time)
    events, _ = run(recognizer, clock(50.0))
    assert text(events) == numbers(0, 50)
    assert all(len(call) <= batch for call in kernel.calls)


# packed


def phrases(*spans: tuple[float, ...], size: float) -> F32:
    """Speech from ``first`` to ``last`` second, at a level of its own if a third number says so."""
    audio = clock(size, level=0.0)
    for first, last, level in ((*span, 0.1)[:3] for span in spans):
        audio[round(first * RATE) : round(last * RATE)] = clock(last - first, start=first, level=level)
    return audio


def at_their_time(audio: F32, tokens: Sequence[int]) -> Any:
    """Each number where its second is."""
    from rechka.decoding.whisper import Alignment

    times, loud = told(audio)
    begins = []
    for token in tokens:
        word = CODEC.decode([token]).strip().lstrip("ич")
        second = int(word) if word.isdigit() else 0
        inside = np.flatnonzero(loud & (np.floor(times) == second))
        begins.append(int(inside[0]) if len(inside) else (begins[-1] if begins else 0))
    return Alignment((*begins, min(begins[-1] + 50, len(audio) // 320)), (0.9,) * len(tokens))


SPANS = ((1.0, 5.0), (8.0, 12.0), (20.0, 26.0), (40.0, 44.0), (52.0, 54.0), (70.0, 74.0))


def test_phrases_share_windows_and_keep_their_times() -> None:
    recognizer, kernel = make(packed_counting, places=at_their_time)
    events, _ = run(recognizer, phrases(*SPANS, size=80.0))
    assert sum(len(call) for call in kernel.calls) == 2  # six phrases: a minute's speech, and one more
    found = segments(events)
    assert [segment.text for segment in found] == [numbers(int(a), int(b)) for a, b in SPANS]
    for segment, (first, last) in zip(found, SPANS, strict=True):
        assert abs(segment.start - first) < 0.05
        assert abs(segment.end - last) < 0.3
        assert all(abs(word.start - int(word.text[1:])) < 0.05 for word in segment.words)


def test_silence_is_not_decoded() -> None:
    recognizer, kernel = make()
    for audio in (clock(100.0, level=0.0), np.zeros(0, np.float32), np.zeros(100, np.float32)):
        events, stream = run(recognizer, audio)
        assert events == []
        assert stream.done
    assert kernel.calls == []
    assert kernel.encoded == 0


def test_speech_without_a_pause_loses_no_word_and_says_none_twice() -> None:
    recognizer, kernel = make(packed_counting, places=at_their_time)
    events, _ = run(recognizer, phrases((2.0, 97.0), size=100.0))
    assert text(events) == numbers(2, 97)
    assert max(ask.seconds for call in kernel.calls for ask in call) <= 30.0
    words = [word for segment in segments(events) for word in segment.words]
    assert [word.start for word in words] == sorted(word.start for word in words)


def test_without_word_times_a_long_phrase_is_joined_all_the_same() -> None:
    recognizer, _ = make(packed_counting, places=at_their_time, word_times=False)
    assert text(run(recognizer, phrases((2.0, 60.0), size=62.0))[0]) == numbers(2, 60)


def test_a_second_look_at_what_the_vad_missed() -> None:
    """Half as loud as speech: the VAD says silence, the level says otherwise."""
    audio = phrases((5.0, 9.0), (20.0, 24.0, 0.04), size=40.0)
    recognizer, _ = make(packed_counting, places=at_their_time, least=0.06)
    events, _ = run(recognizer, audio)
    assert text(events) == f"{numbers(5, 9)} {numbers(20, 24)}"
    assert segments(events)[1].labels["signs"] == ["no speech"]
    recognizer, _ = make(packed_counting, places=at_their_time, least=0.06, look_again=False)
    assert text(run(recognizer, audio)[0]) == numbers(5, 9)


def test_text_of_a_second_look_must_stand_without_any_sign_against_it() -> None:
    audio = phrases((5.0, 9.0), (20.0, 24.0, 0.04), size=40.0)

    def script(ask: Ask) -> Generated:
        if np.abs(ask.audio).max() > 0.06:
            return packed_counting(ask)
        return says("Продолжение следует", logprob=-0.1)

    recognizer, _ = make(script, least=0.06)
    events, stream = run(recognizer, audio)
    assert text(events) == numbers(5, 9)
    assert [said[2] for said in stream.progress.mode.dropped] == ["Продолжение следует"]


def test_what_was_dropped_is_reported_with_its_reasons() -> None:
    def script(ask: Ask) -> Generated:
        return says("Субтитры сделал кто-то", no_speech=0.8) if 3 < ask.start < 30 else packed_counting(ask)

    audio = phrases((1.0, 4.0), (20.0, 22.0), (92.0, 95.0), size=100.0)
    recognizer, _ = make(script, places=at_their_time, batch_size=1)
    options = {"mode": "sequential", "stamps": False}
    recognizer = WhisperRecognizer(
        WhisperModel(recognizer.model.kernel, CODEC, WhisperOptions(language="ru", **options)), vad=LevelVad()
    )

    def by_window(ask: Ask) -> Generated:
        return says("Субтитры сделал кто-то", no_speech=0.8) if ask.start == 30.0 else packed_counting(ask)

    recognizer.model.kernel.script = by_window
    events, _ = run(recognizer, audio)
    assert text(events) == "ч1 ч2 ч3 ч20 ч21 ч92 ч93 ч94"
    [dropped] = segments(events)[1].labels["dropped"]
    assert dropped["text"] == "Субтитры сделал кто-то"
    assert set(dropped["signs"]) >= {"credits", "model says no speech", "no speech"}
    assert 30.0 <= dropped["start"] <= dropped["end"] <= 60.0


def test_improbable_segments_between_pauses_are_dropped_if_asked() -> None:
    from rechka.decoding.whisper import Alignment

    def script(ask: Ask) -> Generated:
        return stamped(5.0, "добрый день", 6.0, 15.0, "амара орг", 15.2)

    def places(audio: F32, tokens: Sequence[int]) -> Alignment:
        return Alignment((250, 275, 750, 751, 752), (0.9, 0.9, 0.05, 0.05))

    for silence, expected in ((0.0, "добрый день амара орг"), (2.0, "добрый день")):
        recognizer, _ = make(script, mode="sequential", places=places, guard_silence_s=silence)
        events, _ = run(recognizer, clock(28.0))
        assert text(events) == expected


# batches


def guarded(ask: Ask) -> Generated:
    """Every fate that a window can have, by its time."""
    kind = int(ask.start) // 10 % 5
    if kind == 1 and ask.search.temperature < 0.4:
        return says("речка " * 60, logprob=-0.1)
    if kind == 2:
        return says("Спасибо за просмотр", logprob=-1.6, no_speech=0.9)
    if kind == 3 and ask.search.temperature < 0.2:
        return says("тихо", logprob=-2.0)
    if kind == 4:
        return says("ну и вот мы тут " * 3, logprob=-0.3 - ask.search.temperature)
    return says(f"окно {ask.start:.0f} {ask.search.temperature}")


@pytest.mark.parametrize("batch", [3, 8])
def test_batched_is_sequential_on_all_guards(batch: int) -> None:
    audio = phrases(*((10.0 * i + 0.5, 10.0 * i + 4.0) for i in range(20)), size=200.0)
    options = {"mode": "chunked", "chunk_s": 10.0, "stride_s": 0.0}
    recognizer, alone = make(guarded, batch_size=1, **options)
    expected, _ = run(recognizer, audio)
    recognizer, kernel = make(guarded, batch_size=batch, **options)
    found, _ = run(recognizer, audio)
    assert found == expected
    assert max(len(call) for call in kernel.calls) == batch
    assert max(len(call) for call in alone.calls) == 1
    # The same windows at the same temperatures were asked for, only in other company.
    asked = [sorted((a.start, a.search.temperature) for call in k.calls for a in call) for k in (alone, kernel)]
    assert asked[0] == asked[1]


def test_streams_share_calls_and_change_nothing_for_one_another() -> None:
    audios = [phrases((1.0 + i, 6.0 + 2 * i), (20.0, 24.0), size=30.0 + 7 * i) for i in range(3)]
    recognizer, _ = make(packed_counting, places=at_their_time)
    expected = [run(recognizer, audio)[0] for audio in audios]
    recognizer, kernel = make(packed_counting, places=at_their_time)
    streams = [recognizer.open(partials=False, limit_s=None) for _ in audios]
    for stream, audio in zip(streams, audios, strict=True):
        stream.feed(audio)
        stream.finish()
    recognizer.run(streams)
    assert [stream.take() for stream in streams] == expected
    assert max(len(call) for call in kernel.calls) == 3


MIXED = phrases((1.0, 6.0), (9.0, 10.0), (14.0, 45.0), (50.0, 52.0), size=56.0)
EXPECTED: dict[str, list[Event]] = {}


@pytest.mark.parametrize("mode", ["packed", "sequential", "chunked"])
@given(st.lists(st.integers(1, 12 * RATE), max_size=8))
@settings(max_examples=5, deadline=None)
def test_events_depend_on_the_audio_alone(mode: str, pieces: list[int]) -> None:
    options: dict[str, Any] = {"mode": mode, "stamps": False, "places": at_their_time, "language": ""}
    if mode not in EXPECTED:
        EXPECTED[mode] = run(make(packed_counting, **options)[0], MIXED)[0]
        heard = text(EXPECTED[mode]).split()
        assert sorted(heard, key=lambda word: int(word[1:])) == heard
        assert set(heard) == set(f"{numbers(1, 6)} ч9 {numbers(14, 45)} {numbers(50, 52)}".split())
    events, stream = run(make(packed_counting, **options)[0], MIXED, pieces=pieces)
    assert events == EXPECTED[mode]
    assert stream.language == "ru"


def test_a_step_that_fails_changes_nothing() -> None:
    failing = True

    def script(ask: Ask) -> Generated:
        if failing:
            raise MemoryError
        return packed_counting(ask)

    for mode in ("packed", "sequential", "chunked"):
        failing = True
        recognizer, _ = make(script, mode=mode, stamps=False, places=at_their_time)
        stream = recognizer.open(partials=False, limit_s=None)
        stream.feed(MIXED)
        stream.finish()
        with pytest.raises(MemoryError):
            recognizer.run([stream])
        failing = False
        recognizer.run([stream])
        assert stream.take() == run(recognizer, MIXED)[0]


class Forgetful(ScriptedKernel):
    """A kernel that keeps no record."""

    def generate(self, *args: Any) -> list[Generated]:
        found = super().generate(*args)
        self.calls.clear()
        return found

    def align(self, *args: Any) -> Any:
        found = super().align(*args)
        self.aligned.clear()
        return found


@pytest.mark.parametrize("mode", ["packed", "sequential", "chunked"])
def test_an_hour_needs_no_more_memory_than_two_minutes(mode: str) -> None:
    minute = phrases((1.0, 20.0), (22.0, 45.0), (50.0, 58.0), size=60.0)

    def peak(minutes: int) -> int:
        kernel = Forgetful(lambda ask: says("слово за слово"))
        model = WhisperModel(kernel, CODEC, WhisperOptions(language="ru", mode=mode, stamps=False, batch_size=2))
        recognizer = WhisperRecognizer(model, vad=LevelVad())
        stream = recognizer.open(partials=False)
        words = 0
        gc.collect()
        tracemalloc.start()
        for _ in range(minutes):
            for first in range(0, len(minute), 20 * RATE):
                stream.feed(minute[first : first + 20 * RATE])
                recognizer.run([stream])
            words += len(stream.take())
        stream.finish()
        recognizer.run([stream])
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert stream.done
        assert words >= minutes
        return used

    assert peak(60 if mode == "packed" else 12) < 1.1 * peak(3)


# chunked


@pytest.mark.parametrize("stride", [2.0, 5.0])
def test_overlapping_windows_are_joined(stride: float) -> None:
    recognizer, kernel = make(packed_counting, mode="chunked", stride_s=stride, places=at_their_time, batch_size=3)
    events, _ = run(recognizer, clock(100.0))
    assert text(events) == numbers(0, 100)
    assert starts(kernel)[:3] == [0.0, 30.0 - 2 * stride, 60.0 - 4 * stride]
    assert max(len(call) for call in kernel.calls) == 3


def test_edges_of_chunks_that_were_misheard_are_not_taken() -> None:
    def script(ask: Ask) -> Generated:
        words = packed_counting(ask).tokens
        said = [CODEC.decode([token]) for token in words]
        if ask.start > 0:
            said[0] = " обрывок"
        if ask.start + ask.seconds < 70:
            said[-1] = " обры"
        return says("".join(said))

    recognizer, _ = make(script, mode="chunked")
    assert text(run(recognizer, clock(70.0))[0]) == numbers(0, 70)


# languages


def test_the_language_is_voted_on_by_several_windows() -> None:
    def languages_of(audio: F32) -> dict[str, float]:
        start = Ask(audio, (), None, 0).start  # type: ignore[arg-type]
        return {"uk": 0.8, "ru": 0.2} if start < 5 else {"ru": 0.95, "uk": 0.05}

    for mode in ("packed", "sequential", "chunked"):
        recognizer, kernel = make(packed_counting, mode=mode, language="", languages_of=languages_of, stamps=False,
                                  places=at_their_time)  # fmt: skip
        audio = phrases((0.0, 28.0), (30.5, 58.0), (61.0, 88.0), (91.0, 100.0), size=100.0)
        _, stream = run(recognizer, audio)
        assert stream.language == "ru"
        assert kernel.detected == 3
        windows = {(ask.start, len(ask.audio)) for call in kernel.calls for ask in call}
        assert kernel.encoded <= len(windows) + (2 if mode == "sequential" else 0)  # encoded for the vote, used again
        assert all(SPECIAL.languages["ru"] in ask.prompt for call in kernel.calls for ask in call)


def test_candidates_for_the_language() -> None:
    def languages_of(audio: F32) -> dict[str, float]:
        return {"uk": 0.8, "ru": 0.15, "en": 0.05}

    recognizer, _ = make(packed_counting, language="", languages=("ru", "en"), languages_of=languages_of)
    assert run(recognizer, phrases((1.0, 4.0), size=6.0))[1].language == "ru"


def test_the_language_can_be_followed() -> None:
    def languages_of(audio: F32) -> dict[str, float]:
        start = Ask(audio, (), None, 0).start  # type: ignore[arg-type]
        return {"en": 0.9, "ru": 0.1} if start >= 60 else {"ru": 0.9, "en": 0.1}

    def script(ask: Ask) -> Generated:
        english = SPECIAL.languages["en"] in ask.prompt
        return stamped(0.0, "well hello there everyone" if english else "ну да", 2.0)

    recognizer, _ = make(
        script,
        mode="sequential", language="", languages_of=languages_of, follow_language=True,
    )  # fmt: skip
    events, stream = run(recognizer, clock(90.0))
    assert [segment.labels.get("language") for segment in segments(events)] == [None, None, "en"]
    assert stream.language == "ru"


def test_an_english_only_model() -> None:
    recognizer, kernel = make(packed_counting, language="")
    kernel.multilingual = False
    recognizer = WhisperRecognizer(WhisperModel(kernel, CODEC, WhisperOptions()), vad=LevelVad())
    assert run(recognizer, phrases((1.0, 4.0), size=6.0))[1].language == "en"
    assert kernel.detected == 0
    with pytest.raises(UsageError, match="English only"):
        WhisperRecognizer(WhisperModel(kernel, CODEC, WhisperOptions(language="ru")), vad=LevelVad())


# live


def test_live_phrases_show_text_and_close_with_it() -> None:
    recognizer, kernel = make(packed_counting, places=at_their_time)
    events, _ = run(recognizer, phrases((1.0, 6.0), (9.0, 12.0), size=15.0), partials=True, pieces=[3200] * 75)
    kinds = [type(event).__name__ for event in events if not isinstance(event, Partial)]
    assert kinds == ["SpeechStart", "Final", "SpeechEnd"] * 2
    assert text(events) == f"{numbers(1, 6)} {numbers(9, 12)}"
    partials = [event for event in events if isinstance(event, Partial)]
    assert len(partials) >= 4
    for before, after in pairwise(partials):
        if before.start == after.start:
            assert after.stable.startswith(before.stable)  # LocalAgreement: never taken back
    assert any(event.stable for event in partials)
    greedy = [ask for call in kernel.calls for ask in call if ask.search.beam_size == 1]
    assert len(greedy) >= len(partials)
    assert isinstance(events[0], SpeechStart)
    assert isinstance(events[-1], SpeechEnd)


def test_live_the_text_before_is_the_prompt() -> None:
    recognizer, kernel = make(packed_counting, places=at_their_time)
    run(recognizer, phrases((1.0, 6.0), (9.0, 12.0), size=15.0), partials=True)
    told = CODEC.decode([t for t in kernel.calls[-1][0].prompt if SPECIAL.is_text(t)])
    assert told == " " + numbers(1, 6)


def test_words_by_alignment_are_stable_before_a_second_decode_agrees() -> None:
    audio = phrases((1.0, 9.0), size=12.0)

    def first_stable(commit: str) -> float:
        recognizer, _ = make(packed_counting, places=at_their_time, commit=commit, partial_s=2.0)
        stream = recognizer.open(limit_s=None)
        for first in range(0, len(audio), 3200):
            stream.feed(audio[first : first + 3200])
            recognizer.run([stream])
            if any(isinstance(event, Partial) and event.stable for event in stream.take()):
                return first / RATE
        raise AssertionError("nothing was stable")

    assert first_stable("alignment") < first_stable("agreement")


def test_live_speech_without_a_pause_says_nothing_twice() -> None:
    recognizer, _ = make(packed_counting, places=at_their_time)
    audio = phrases((1.0, 61.0), size=64.0)
    events, _ = run(recognizer, audio, partials=True, pieces=[8000] * 128)
    assert text(events) == numbers(1, 61)
    assert not any(isinstance(event, Refined) for event in events)


def test_live_a_text_that_changes_after_it_was_stable_is_refined() -> None:
    def script(ask: Ask) -> Generated:
        return says("раз два три") if ask.search.beam_size == 1 else says("рас два три")

    recognizer, _ = make(script)
    events, _ = run(recognizer, phrases((1.0, 6.0), size=9.0), partials=True, pieces=[3200] * 45)
    final = next(i for i, event in enumerate(events) if isinstance(event, Final))
    assert events[final].segment.text.startswith("раз")  # type: ignore[union-attr]
    assert isinstance(events[final + 1], Refined)
    assert events[final + 1].segment.text == "рас два три"  # type: ignore[union-attr]


# other faces


def test_phrases_cut_by_others_are_read() -> None:
    """For the second pass: ``as_reader`` takes the recogniser as it is."""
    recognizer, _ = make(packed_counting, places=at_their_time, language="")
    reader = as_reader(recognizer)
    assert reader is recognizer
    long = phrases((2.0, 60.0), size=62.0)
    found = reader.read([clock(3.0), clock(2.0, start=7.0), np.zeros(0, np.float32), long], hotwords={"речка": 1.0})
    assert [segment.text for segment in found] == [numbers(0, 3), numbers(7, 9), "", numbers(2, 60)]


def test_phrases_cut_by_others_tell_what_was_dropped() -> None:
    recognizer, _ = make(lambda ask: says("Продолжение следует", no_speech=0.8))
    [segment] = recognizer.read([clock(3.0)])
    assert segment.text == ""
    [dropped] = segment.labels["dropped"]
    assert (dropped["text"], dropped["signs"]) == ("Продолжение следует", ["credits", "model says no speech"])


def test_hotwords_are_part_of_every_prompt_the_strongest_first() -> None:
    recognizer, kernel = make(packed_counting, hotwords=("всегда",), places=at_their_time)
    run(recognizer, phrases((1.0, 4.0), size=6.0), hotwords={"слабое": 1.0, "сильное": 9.0})
    told = CODEC.decode([t for t in kernel.calls[0][0].prompt if SPECIAL.is_text(t)])
    assert told == " сильное, слабое, всегда"


def test_asr_gives_the_language_that_was_heard() -> None:
    recognizer, _ = make(packed_counting, places=at_their_time, language="")
    asr = WhisperAsr(recognizer, name="whisper", language="mul")
    told: list[float] = []
    transcript = asr.transcribe((phrases((1.0, 4.0), size=6.0), RATE), progress=lambda done, total: told.append(done))
    assert (transcript.language, transcript.text) == ("ru", numbers(1, 4))
    assert told[-1] == pytest.approx(6.0)
    english = asr.with_options(task="translate", language="russian")
    assert english.language == "ru"
    assert english.recognizer.options.task == "translate"
    assert asr.recognizer.options.task == "transcribe"
    with pytest.raises(UsageError, match="no option"):
        asr.with_options(tempo=3)


def test_parts_that_do_not_fit_are_refused() -> None:
    model = WhisperModel(ScriptedKernel(counting), CODEC)
    with pytest.raises(IncompatibleParts, match="needs a VAD"):
        WhisperRecognizer(model)
    vad = LevelVad()
    vad.sample_rate = 8000
    with pytest.raises(IncompatibleParts, match="8000 Hz"):
        WhisperRecognizer(model, vad=vad)
    with pytest.raises(UsageError, match="does not know the language"):
        WhisperRecognizer(model, WhisperOptions(language="xx"), vad=LevelVad())


def test_without_a_vad_windows_are_decoded_one_after_another() -> None:
    model = WhisperModel(ScriptedKernel(counting), CODEC, WhisperOptions(mode="sequential", vad="none", language="ru"))
    events, _ = run(WhisperRecognizer(model), clock(40.0))
    assert text(events) == numbers(0, 40)
