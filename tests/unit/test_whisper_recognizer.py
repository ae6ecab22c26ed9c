"""Whisper's recogniser on a scripted kernel that hears a word in every second of tone.

The audio says which second it is (a level of 1e-7 per second under the tone), so the script knows what a real model
would say about any window: packed, overlapping, divided, or cut through a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.decoding.whisper import Alignment, Generated, WhisperOptions
from rechka.errors import IncompatibleParts, UsageError
from rechka.models.whisper import WhisperModel
from rechka.recognizers import Asr
from rechka.recognizers.whisper import WhisperRecognizer
from rechka.segmentation.vad import EnergyVad
from rechka.testing.whisper import Ask, ScriptedKernel, WordCodec
from rechka.types import F32, Event, Final, Partial, Segment

RATE, POSITION = 16000, 320
CREDIT = "Субтитры сделал DimaTorzok"
LOOP = "да да да да да да да да"
CODEC = WordCodec()


def audio(seconds: float, *spoken: tuple[float, float], level: float = 0.1) -> F32:
    """``seconds`` of silence with a tone in the intervals ``spoken``."""
    index = np.arange(round(seconds * RATE))
    on = np.zeros(len(index), bool)
    for first, last in spoken:
        on[round(first * RATE) : round(last * RATE)] = True
    # 250 Hz: every 20 ms hold whole periods, so their mean is the mark.
    tone = level * np.sin(2 * np.pi * 250 * index / RATE)
    return (np.where(on, tone, 0.0) + (index // RATE + 1) * 1e-7).astype(np.float32)


def heard(samples: F32) -> list[tuple[str, int, int]]:
    """Words of a window, with their first and last position: a word for each second of which half can be heard."""
    blocks = samples[: len(samples) // POSITION * POSITION].reshape(-1, POSITION).astype(np.float64)
    second = np.round(blocks.mean(axis=1) * 1e7).astype(int) - 1
    on = blocks.std(axis=1) > 0.01
    found: list[tuple[str, int, int]] = []
    first = 0
    for i in range(1, len(blocks) + 1):
        if i == len(blocks) or on[i] != on[first] or second[i] != second[first]:
            if on[first] and i - first >= 25:
                found.append((f"с{second[first]}", first, i))
            first = i
    return found


class LevelVad:
    """Speech is what is loud. Windows of 512 samples."""

    sample_rate, window = RATE, 512

    def initial_state(self) -> F32:
        return np.zeros(0, np.float32)

    def step(self, pieces: Sequence[F32], states: Sequence[F32]) -> tuple[list[F32], list[F32]]:
        joined = [np.concatenate(pair) for pair in zip(states, pieces, strict=True)]
        whole = [one[: len(one) // 512 * 512].reshape(-1, 512) for one in joined]
        return (
            [(one.std(axis=1) > 0.01).astype(np.float32) for one in whole],
            [one[len(one) // 512 * 512 :] for one in joined],
        )


class DeafVad(LevelVad):
    """Hears nothing."""

    def step(self, pieces: Sequence[F32], states: Sequence[F32]) -> tuple[list[F32], list[F32]]:
        found, after = super().step(pieces, states)
        return [0 * one for one in found], after


@dataclass
class Speaker:
    """What the model says.

    Attributes:
        room: most words of a window before the limit of tokens.
        bad: second -> temperature from which a window with it is read well.
        over_silence: text of a window without speech.
    """

    room: int = 10**6
    bad: dict[str, float] | None = None
    over_silence: str = ""

    def __call__(self, ask: Ask) -> Generated:
        words = heard(ask.audio)
        stamps = CODEC.special.no_stamps not in ask.prompt
        if not words:
            tokens = CODEC.stamped(0.0, self.over_silence, 2.0) if stamps else tuple(CODEC.encode(self.over_silence))
            return Generated(tokens if self.over_silence else (), -0.3 * (len(tokens) + 1), 0.9)
        needed = max((self.bad or {}).get(text, 0.0) for text, _, _ in words)
        if ask.search.temperature < needed:
            tokens = CODEC.stamped(0.0, LOOP, 30.0) if stamps else tuple(CODEC.encode(LOOP))
            return Generated(tokens, -0.1 * (len(tokens) + 1), 0.01)
        truncated, words = len(words) > self.room, words[: self.room]
        tokens = self._stamped(words, len(ask.audio) // POSITION) if stamps else _plain(words)
        return Generated(tokens, -0.2 * (len(tokens) + 1), 0.01, truncated)

    def _stamped(self, words: Sequence[tuple[str, int, int]], size: int) -> tuple[int, ...]:
        """A segment for each run of words; the last has no end if it goes on beyond the window."""
        runs: list[list[tuple[str, int, int]]] = []
        for word in words:
            if runs and word[1] - runs[-1][-1][2] <= 2:
                runs[-1].append(word)
            else:
                runs.append([word])
        found: list[int] = []
        for run in runs:
            found += [CODEC.special.stamp(run[0][1]), *_plain(run)]
            if run[-1][2] < size - 5 or run is not runs[-1]:
                found.append(CODEC.special.stamp(run[-1][2]))
        return tuple(found)


def _plain(words: Sequence[tuple[str, int, int]]) -> tuple[int, ...]:
    return tuple(token for text, _, _ in words for token in CODEC.encode(text))


def places(samples: F32, tokens: Sequence[int]) -> Alignment:
    """Where the script heard the words; where it did not, at the beginning."""
    known = {text: (first, last) for text, first, last in heard(samples)}
    spans = [known.get(CODEC.decode([token]).strip(), (0, 1)) for token in tokens]
    begins = np.maximum.accumulate([first for first, _ in spans] + [spans[-1][1]])
    return Alignment(tuple(begins.tolist()), (0.9,) * len(tokens))


def recognizer(
    script: Callable[[Ask], Generated] | None = None, *, vad: Any = None, languages: Any = None, **options: Any
) -> tuple[WhisperRecognizer, ScriptedKernel]:
    kernel = ScriptedKernel(script or Speaker(), places=places)
    if languages is not None:
        kernel.languages = languages
    made = WhisperOptions(**{"language": "ru", **options})
    return WhisperRecognizer(WhisperModel(kernel, CODEC), made, vad=vad or LevelVad()), kernel


def events(found: WhisperRecognizer, samples: F32, *, cuts: Sequence[int] = (), partials: bool = False) -> list[Event]:
    stream = found.open(partials=partials, limit_s=None)
    for piece in np.split(samples, [cut for cut in cuts if cut < len(samples)]):
        stream.feed(piece)
        found.run([stream])
    stream.finish()
    found.run([stream])
    assert stream.done
    return stream.take()


def segments(found: WhisperRecognizer, samples: F32, **more: Any) -> list[Segment]:
    return [event.segment for event in events(found, samples, **more) if isinstance(event, Final)]


def text(found: Sequence[Segment]) -> str:
    return " ".join(one.text for one in found)


def said(*spoken: tuple[int, int]) -> str:
    return " ".join(f"с{k}" for first, last in spoken for k in range(first, last))


SPEECH = ((2, 6), (9, 15), (21, 28), (33, 47), (60, 83), (85, 88))
RECORDING = audio(90, *SPEECH)
MODES = ("packed", "sequential", "chunked")


# all modes


@pytest.mark.parametrize("mode", MODES)
def test_every_word_once_in_order_at_its_time(mode: str) -> None:
    found, _ = recognizer(mode=mode)
    result = segments(found, RECORDING)
    assert text(result) == said(*SPEECH)
    for segment in result:
        for word in segment.words:
            assert word.start == pytest.approx(int(word.text[1:]), abs=0.75)
        assert segment.start <= segment.words[0].start
        assert segment.end >= segment.words[-1].end


@pytest.mark.parametrize("mode", MODES)
def test_loops_are_tried_again_in_every_mode_and_the_figures_told(mode: str) -> None:
    found, kernel = recognizer(Speaker(bad={"с3": 0.4, "с70": 0.2}), mode=mode)
    result = segments(found, RECORDING)
    assert text(result) == said(*SPEECH)
    by_word = {word.text: segment.labels["temperature"] for segment in result for word in segment.words}
    assert by_word["с3"] == 0.4
    assert by_word["с70"] == 0.2
    assert {call[0].search.temperature for call in kernel.calls} == {0.0, 0.2, 0.4}


@pytest.mark.parametrize("mode", MODES)
def test_what_was_made_up_over_silence_is_dropped(mode: str) -> None:
    found, _ = recognizer(Speaker(over_silence=CREDIT), mode=mode)
    assert text(segments(found, audio(100, (40, 44)))) == said((40, 44))


def test_what_was_dropped_is_reported_with_its_reasons() -> None:
    found, _ = recognizer(Speaker(over_silence=CREDIT), mode="sequential")
    [segment] = segments(found, audio(100, (65, 70)))
    dropped = segment.labels["dropped"]
    assert [one["text"] for one in dropped] == [CREDIT, CREDIT]
    assert {"credits", "no speech"} <= set(dropped[0]["signs"])
    assert (dropped[0]["start"], dropped[1]["start"]) == (pytest.approx(0, abs=0.5), pytest.approx(30, abs=0.5))


@pytest.mark.parametrize("mode", MODES)
def test_a_window_that_hits_the_limit_of_tokens_is_divided(mode: str) -> None:
    found, kernel = recognizer(Speaker(room=9), mode=mode)
    assert text(segments(found, RECORDING)) == said(*SPEECH)
    assert min(ask.seconds for call in kernel.calls for ask in call) < 16


@pytest.mark.parametrize("mode", MODES)
def test_a_loop_that_fills_the_limit_is_not_divided(mode: str) -> None:
    tokens = tuple(CODEC.encode(LOOP))
    found, kernel = recognizer(
        lambda ask: Generated(tokens, -0.1 * len(tokens), 0.01, True), mode=mode, temperatures=(0.0,)
    )
    segments(found, audio(20, (1, 19)))
    assert sum(len(call) for call in kernel.calls) == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("script", [Speaker(), Speaker(room=9, bad={"с23": 0.2, "с64": 0.6}, over_silence=CREDIT)])
def test_batches_change_nothing(mode: str, script: Speaker) -> None:
    alone, first = recognizer(script, mode=mode, batch_size=1)
    together, second = recognizer(script, mode=mode, batch_size=8)
    assert segments(alone, RECORDING) == segments(together, RECORDING)
    if mode != "sequential":
        assert max(map(len, second.calls)) > 1
    assert max(map(len, first.calls)) == 1


@pytest.mark.parametrize("mode", MODES)
def test_streams_share_calls_and_nothing_else(mode: str) -> None:
    recordings = [RECORDING, audio(40, (3, 20)), audio(1), audio(65, (0, 3), (50, 64))]
    found, kernel = recognizer(Speaker(bad={"с5": 0.2}), mode=mode)
    alone = [segments(found, one) for one in recordings]
    kernel.calls.clear()
    streams = [found.open(partials=False, limit_s=None) for _ in recordings]
    for stream, one in zip(streams, recordings, strict=True):
        stream.feed(one)
        stream.finish()
    found.run(streams)
    together = [[event.segment for event in stream.take() if isinstance(event, Final)] for stream in streams]
    assert together == alone
    assert max(map(len, kernel.calls)) > 1


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=5)
@given(cuts=st.lists(st.integers(1, 50 * RATE), max_size=6).map(sorted))
def test_how_audio_is_fed_changes_nothing(mode: str, live: bool, cuts: list[int]) -> None:
    samples = audio(50, (2, 6), (9, 15), (21, 46))
    found, _ = recognizer(mode=mode)
    whole = [one for one in events(found, samples, partials=live) if not isinstance(one, Partial)]
    parts = [one for one in events(found, samples, cuts=cuts, partials=live) if not isinstance(one, Partial)]
    assert whole == parts
    assert text([one.segment for one in whole if isinstance(one, Final)]) == said((2, 6), (9, 15), (21, 46))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_and_next_to_nothing(mode: str) -> None:
    found, _ = recognizer(mode=mode)
    for size in (0, 1, 100, 1599, 5000):
        assert segments(found, np.zeros(size, np.float32)) == []


# one mode at a time


def test_packed_windows_hold_speech_up_to_thirty_seconds_and_no_silence() -> None:
    found, kernel = recognizer()
    segments(found, audio(300, (10, 14), (30, 34), (100, 109), (120, 129), (140, 149), (290, 295)))
    sizes = sorted(ask.seconds for call in kernel.calls for ask in call)
    assert sum(sizes) < 4 + 4 + 9 * 3 + 5 + 6 * 0.6
    assert sizes[-1] <= 30.0
    assert len(sizes) < 6


def test_what_the_vad_missed_is_looked_at_again() -> None:
    samples = audio(40, (5, 9), (20, 24))
    found, _ = recognizer(vad=DeafVad())
    again = text(segments(found, samples))
    assert set(again.split()) == set(said((5, 9), (20, 24)).split())
    deaf, _ = recognizer(vad=DeafVad(), look_again=False)
    assert segments(deaf, samples) == []


def test_a_second_look_takes_only_text_without_any_sign() -> None:
    made_up = Speaker(bad={"с6": 9.0})  # a loop at any temperature
    found, _ = recognizer(made_up, vad=DeafVad())
    assert "да" not in text(segments(found, audio(40, (5, 9), (20, 24))))


def prompts(kernel: ScriptedKernel) -> list[str]:
    """Text before the start of the transcript, of each window of each call."""
    start = CODEC.special.start
    return [
        CODEC.decode([one for one in ask.prompt[: ask.prompt.index(start)] if CODEC.special.is_text(one)]).strip()
        for call in kernel.calls
        for ask in call
    ]


def test_sequential_windows_begin_where_the_stamps_say() -> None:
    found, kernel = recognizer(mode="sequential")
    assert text(segments(found, audio(70, (2, 10), (25, 40)))) == said((2, 10), (25, 40))
    starts = [heard(call[0].audio) for call in kernel.calls]
    # The second segment goes on beyond 30 s, so the second window begins where the first segment ended or later.
    assert starts[1][0][0] == "с25"
    assert 10 <= 25 - starts[1][0][1] / 50 <= 25


def test_sequential_windows_know_the_text_before_them() -> None:
    found, kernel = recognizer(mode="sequential", prompt="Совещание о мосте")
    segments(found, RECORDING)
    first, second = prompts(kernel)[:2]
    assert first == "Совещание о мосте"
    assert second.startswith("Совещание о мосте с2 с3")
    found, kernel = recognizer(mode="sequential", use_previous=False, prompt="Совещание о мосте")
    segments(found, RECORDING)
    assert set(prompts(kernel)) == {"Совещание о мосте"}


def test_a_text_from_a_high_temperature_is_not_a_prompt() -> None:
    for temperature, known in ((0.4, True), (0.6, False)):
        found, kernel = recognizer(Speaker(bad={"с3": temperature}), mode="sequential")
        segments(found, RECORDING)
        later = next(
            one for one, call in zip(prompts(kernel), kernel.calls, strict=True) if heard(call[0].audio)[0][0] != "с2"
        )
        assert ("с3" in later) is known


@pytest.mark.parametrize("mode", MODES)
def test_hotwords_are_told_to_every_window(mode: str) -> None:
    found, kernel = recognizer(mode=mode, hotwords=("Гидропроект",))
    stream = found.open(hotwords={"Чусовая": 1.0, "Лысьва": 5.0}, partials=False, limit_s=None)
    stream.feed(RECORDING)
    stream.finish()
    found.run([stream])
    assert {one.startswith("Лысьва, Чусовая, Гидропроект") for one in prompts(kernel)} == {True}


def test_chunks_overlap_by_the_stride() -> None:
    found, kernel = recognizer(mode="chunked", chunk_s=20.0, stride_s=4.0)
    assert text(segments(found, RECORDING)) == said(*SPEECH)
    asks = [ask for call in kernel.calls for ask in call]
    assert [round(ask.seconds) for ask in asks[:-1]] == [20] * (len(asks) - 1)
    assert len(asks) == 1 + -(-(90 - 20) // 12)


def test_a_cut_through_a_word_loses_nothing() -> None:
    samples = audio(100, (1, 99))  # no pause anywhere
    for mode in MODES:
        found, _ = recognizer(mode=mode)
        assert text(segments(found, samples)) == said((1, 99)), mode


# languages and tasks


def test_the_language_is_detected_once_by_a_vote() -> None:
    def languages(samples: F32) -> dict[str, float]:
        return {"uk": 0.9, "ru": 0.1} if heard(samples)[0][0] == "с2" else {"uk": 0.1, "ru": 0.9}

    found, kernel = recognizer(language="", languages=languages, mode="sequential")
    segments(found, RECORDING)
    spoken = {one for call in kernel.calls for ask in call for one in ask.prompt}
    assert CODEC.special.languages["ru"] in spoken
    assert CODEC.special.languages["uk"] not in spoken
    assert kernel.detected == 3


def test_a_list_of_languages() -> None:
    found, kernel = recognizer(
        language="", languages=lambda samples: {"en": 0.8, "ru": 0.15, "de": 0.05}, **{"mode": "packed"}
    )
    segments(found, RECORDING)
    assert CODEC.special.languages["en"] in kernel.calls[0][0].prompt
    kernel = ScriptedKernel(Speaker(), languages=lambda samples: {"en": 0.8, "ru": 0.15, "de": 0.05}, places=places)
    model = WhisperModel(kernel, CODEC, WhisperOptions(languages=("ru", "de")))
    segments(WhisperRecognizer(model, vad=LevelVad()), RECORDING)
    assert CODEC.special.languages["ru"] in kernel.calls[0][0].prompt


def test_a_flip_of_the_language_inside_a_file() -> None:
    def languages(samples: F32) -> dict[str, float]:
        return {"en": 0.95, "ru": 0.05} if heard(samples)[0][0] == "с60" else {"ru": 0.9, "en": 0.1}

    found, kernel = recognizer(
        Speaker(), language="ru", languages=languages, follow_language=True, mode="chunked", chunk_s=30.0, stride_s=0.0
    )
    result = segments(found, RECORDING)
    assert {word.text for one in result if one.labels.get("language") == "en" for word in one.words} >= {"с61", "с70"}
    flipped = [ask for call in kernel.calls for ask in call if CODEC.special.languages["en"] in ask.prompt]
    assert [heard(ask.audio)[0][0] for ask in flipped] == ["с60"]


def test_translation() -> None:
    found, kernel = recognizer(task="translate")
    segments(found, RECORDING)
    assert {CODEC.special.translate in ask.prompt for call in kernel.calls for ask in call} == {True}


def test_what_does_not_fit_is_said_before_any_audio() -> None:
    kernel = ScriptedKernel(Speaker(), multilingual=False)
    model = WhisperModel(kernel, CODEC)
    with pytest.raises(UsageError, match="English only"):
        WhisperRecognizer(model, WhisperOptions(task="translate"), vad=LevelVad())
    with pytest.raises(UsageError, match="does not know"):
        recognizer(language="xx")
    with pytest.raises(UsageError, match="does not know"):
        recognizer(language="", languages=None, mode="sequential")[0].with_options(languages=["xx"])
    with pytest.raises(IncompatibleParts, match="VAD"):
        WhisperRecognizer(WhisperModel(ScriptedKernel(Speaker()), CODEC), WhisperOptions())
    with pytest.raises(IncompatibleParts, match="16000"):
        WhisperRecognizer(WhisperModel(ScriptedKernel(Speaker()), CODEC), vad=EnergyVad(8000))


# live


def test_live_partials_grow_and_stable_words_stay() -> None:
    found, kernel = recognizer()
    told = events(found, audio(20, (2, 12)), cuts=range(1600, 20 * RATE, 1600), partials=True)
    partials = [one for one in told if isinstance(one, Partial)]
    finals = [one.segment for one in told if isinstance(one, Final)]
    assert text(finals) == said((2, 12))
    assert len(partials) >= 5
    stable = ""
    for one in partials:
        assert one.stable.startswith(stable)
        stable = one.stable
    assert finals[0].text.startswith(stable)
    assert {ask.search.beam_size for call in kernel.calls for ask in call} == {1, 5}  # partials greedy, finals not


@pytest.mark.parametrize("commit", ["agreement", "alignment"])
def test_live_a_word_is_stable_when_it_was_heard_out(commit: str) -> None:
    found, _ = recognizer(commit=commit, partial_s=3.0)
    told = events(found, audio(20, (2, 12)), cuts=range(1600, 20 * RATE, 1600), partials=True)
    partials = [one for one in told if isinstance(one, Partial)]
    assert text([one.segment for one in told if isinstance(one, Final)]) == said((2, 12))
    assert partials
    assert all(one.unstable.strip() for one in partials)  # never the last word
    # By alignment what was attended well before the end is stable at once; agreement needs a second decode.
    assert partials[0].text == said((2, 5))
    assert partials[0].stable == {"agreement": "", "alignment": said((2, 4))}[commit]
    assert partials[1].stable.startswith(said((2, 4)))


# as users hold it


def test_asr_transcribes_and_streams_with_progress() -> None:
    found, _ = recognizer()
    asr = Asr(found, name="whisper", language="mul")
    seen: list[float] = []
    transcript = asr.transcribe((RECORDING, RATE), progress=lambda done, total: seen.append(done))
    assert transcript.text == said(*SPEECH)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(90.0, abs=0.1)
    finals = [one.segment for one in asr.stream((RECORDING, RATE), partials=False) if isinstance(one, Final)]
    assert text(finals) == said(*SPEECH)


def test_phrases_that_others_have_cut() -> None:
    found, _ = recognizer()
    pieces = [audio(5, (1, 4)), np.zeros(0, np.float32), audio(45, (1, 20), (25, 44))]
    result = found.read(pieces)
    assert [one.text for one in result] == [said((1, 4)), "", said((1, 20), (25, 44))]
    assert [one.end for one in result] == [5.0, 0.0, 45.0]
