"""The user's object: files, channels, batches, sources, packets, and failures among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from rechka.errors import AudioNotFound, BadSamples, BrokenAudio, RechkaError, UsageError
from rechka.models import toy
from rechka.recognizers import Asr, ChunkRecognizer
from rechka.testing import ScriptedDecoder, say, silence, toy_asr
from rechka.types import F32, AudioChunk, Final, Frames, Partial, State, Transcript


class Source:
    """An audio source of arrays, one per channel, in small chunks; it can break."""

    def __init__(
        self, *channels: F32, size: int = 3000, fail_at: int | None = None, duration: float | None = None
    ) -> None:
        length = max(len(samples) for samples in channels)
        self.samples = [np.pad(samples, (0, length - len(samples))) for samples in channels]
        self.size, self.fail_at = size, fail_at
        self.sample_rate, self.channels, self.duration, self.truncated = 8000, len(channels), duration, False
        self.closed = False

    def __iter__(self) -> Iterator[tuple[AudioChunk, ...]]:
        try:
            for start in range(0, len(self.samples[0]), self.size):
                if self.fail_at is not None and start >= self.fail_at:
                    raise BrokenAudio("it broke")
                yield tuple(AudioChunk(s[start : start + self.size], 8000, start) for s in self.samples)
        finally:
            self.closed = True


@pytest.fixture
def asr() -> Asr:
    return toy_asr()


def test_an_array(asr: Asr) -> None:
    transcript = asr.transcribe((say("да нет", before_s=0.5, after_s=1.0), 8000))
    assert str(transcript) == "да нет"
    assert (transcript.model, transcript.language) == ("toy", "ru")
    assert transcript.duration == pytest.approx(0.5 + 6 * 0.12 + 1.0)
    [segment] = transcript.segments
    assert (segment.channel, segment.speaker) == (0, None)
    assert segment.start == pytest.approx(0.5, abs=0.03)  # the frame that holds it
    assert [word.text for word in segment.words] == ["да", "нет"]


def test_another_rate(asr: Asr) -> None:
    assert str(asr.transcribe((say("речка", after_s=0.5, sample_rate=44100), 44100))) == "речка"


def test_split_channels_are_speakers_sorted_by_time(asr: Asr) -> None:
    first = np.concatenate([say("алло", after_s=3.0), say("до свидания")])
    second = say("да слушаю", before_s=1.5)
    transcript = asr.transcribe(Source(first, second), channels="split")
    assert [(s.speaker, s.channel, s.text) for s in transcript.segments] == [
        ("1", 0, "алло"),
        ("2", 1, "да слушаю"),
        ("1", 0, "до свидания"),
    ]


class Watched(toy.ToyModel):
    """The toy, noting how many streams and samples each step had."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[list[int]] = []

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        self.sizes.append([len(samples) for samples in audio])
        return super().step(audio, states)


def watched() -> tuple[Asr, Watched]:
    model, decoder = Watched(), ScriptedDecoder(toy.TOKENS.blank)
    return Asr(ChunkRecognizer(model, lambda _: decoder, max_chunks=8), name="toy", language="ru"), model


def test_channels_share_steps_and_files_go_in_blocks() -> None:
    asr, model = watched()
    audio = say("раз два три", after_s=20.0)
    asr.transcribe(Source(audio, audio), channels="split")
    assert {len(sizes) for sizes in model.sizes} == {2}
    assert model.sizes[0] == [8 * 2400, 8 * 2400]
    assert len(model.sizes) == -(-(len(audio) + 2400 + 2640) // (8 * 2400))


def test_progress_runs_to_the_end(asr: Asr) -> None:
    told: list[tuple[float, float | None]] = []
    source = Source(say("да", after_s=19.76), duration=20.0)
    asr.transcribe(source, progress=lambda done, total: told.append((done, total)))
    assert len(told) > 2
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (20.0, 20.0)
    assert source.closed


def test_many_in_order_and_one_bad_does_not_stop_the_rest() -> None:
    asr, model = watched()
    broken = Source(say("никогда", after_s=9.0), fail_at=40_000)
    sources = [Source(say("раз", after_s=9.0)), broken, Source(say("два")), "/nowhere/at all.wav", Source(say("три"))]
    results = list(asr.transcribe_many(sources))
    assert [str(r) if isinstance(r, Transcript) else type(r) for r in results] == [
        "раз",
        BrokenAudio,
        "два",
        AudioNotFound,
        "три",
    ]
    assert max(len(sizes) for sizes in model.sizes) == 4  # side by side
    assert broken.closed


def test_many_reads_no_further_than_it_must(asr: Asr) -> None:
    opened: list[int] = []

    def sources() -> Iterator[Source]:
        for i in range(10):
            opened.append(i)
            yield Source(say("да"))

    results = asr.transcribe_many(sources(), batch=2)
    next(results)
    assert len(opened) <= 4
    results.close()  # type: ignore[attr-defined]
    assert len(list(asr.transcribe_many(sources(), batch=3))) == 10
    assert list(asr.transcribe_many([])) == []


class Poisoned(toy.ToyModel):
    """The toy, refusing chunks with a certain sample."""

    def step(self, audio: Sequence[F32], states: Sequence[State], /) -> tuple[list[Frames], list[State]]:
        if any((samples == np.float32(0.123)).any() for samples in audio):
            raise BadSamples("poison")
        return super().step(audio, states)


def test_a_step_that_fails_fails_its_culprit_only() -> None:
    asr = Asr(
        ChunkRecognizer(Poisoned(), lambda _: ScriptedDecoder(toy.TOKENS.blank), max_chunks=2),
        name="toy",
        language="ru",
    )
    poison = say("нет", after_s=5.0)
    poison[20_000] = 0.123
    results = list(
        asr.transcribe_many([Source(say("раз", after_s=5.0)), Source(poison), Source(say("два", after_s=5.0))])
    )
    assert [str(r) if isinstance(r, Transcript) else r.code for r in results] == ["раз", "audio.bad_samples", "два"]


def test_errors_of_one_source_are_raised(asr: Asr) -> None:
    with pytest.raises(BrokenAudio):
        asr.transcribe(Source(say("да"), fail_at=0))
    with pytest.raises(AudioNotFound):
        asr.transcribe("/nowhere/at all.wav")
    with pytest.raises(UsageError, match="mix or split"):
        asr.transcribe(Source(say("да")), channels="both")  # type: ignore[arg-type]


def test_a_stream_from_a_source(asr: Asr) -> None:
    events = list(asr.stream(Source(say("да нет", after_s=1.0), size=160)))
    assert any(isinstance(event, Partial) for event in events)
    assert [event.segment.text for event in events if isinstance(event, Final)] == ["да нет"]
    quiet = list(asr.stream(Source(say("да нет", after_s=1.0)), partials=False))
    assert quiet == [event for event in events if not isinstance(event, Partial)]


def test_a_stream_gives_events_before_the_source_ends(asr: Asr) -> None:
    read: list[int] = []

    def endless() -> Iterator[tuple[AudioChunk, ...]]:
        audio, start = say("да", after_s=1.0), 0
        while True:
            read.append(start)
            yield (AudioChunk(np.resize(audio, start + 800)[start:], 8000, start),)
            start += 800

    events = asr.stream(endless())
    first = next(event for event in events if isinstance(event, Final))
    assert first.segment.text == "да"
    assert read[-1] < 16_000
    events.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("channels", ["mix", "split"])
def test_a_stream_of_chunks_with_two_channels(asr: Asr, channels: Any) -> None:
    left, right = say("раз", after_s=2.36), say("два", before_s=1.5, after_s=0.86)
    chunks = [
        (AudioChunk(left[i : i + 500], 8000, i), AudioChunk(right[i : i + 500], 8000, i))
        for i in range(0, len(left), 500)
    ]
    if channels == "mix":  # the toy has an ear for loudness, and a mean of two channels is half as loud
        chunks = [tuple(AudioChunk(c.samples * 2, c.sample_rate, c.start) for c in chunk) for chunk in chunks]  # type: ignore[misc]
    finals = [event.segment for event in asr.stream(iter(chunks), channels=channels) if isinstance(event, Final)]
    assert [segment.text for segment in finals] == ["раз", "два"]
    assert [segment.speaker for segment in finals] == ([None, None] if channels == "mix" else ["1", "2"])


def test_packets(asr: Asr) -> None:
    stream = asr.open()
    stream.feed((say("да", after_s=1.0) * 32767).astype(np.int16))
    assert [event.segment.text for event in stream.take() if isinstance(event, Final)] == ["да"]
    stream.feed(say("нет"))
    stream.finish()
    assert [event.segment.text for event in stream.take() if isinstance(event, Final)] == ["нет"]
    assert stream.done


def test_silence_has_no_segments(asr: Asr) -> None:
    transcript = asr.transcribe((silence(2.0), 8000))
    assert transcript.segments == ()
    assert transcript.text == ""
    assert transcript.duration == 2.0
    assert not isinstance(transcript, RechkaError)


def test_hotwords_reach_the_decoder() -> None:
    asked: list[Any] = []

    def factory(hotwords: Any) -> ScriptedDecoder:
        asked.append(hotwords)
        return ScriptedDecoder(toy.TOKENS.blank)

    asr = Asr(ChunkRecognizer(toy.ToyModel(), factory), name="toy", language="ru")
    asr.transcribe(Source(say("да")), hotwords={"да": 3.0})
    asr.open()
    assert asked == [{"да": 3.0}, None]


def test_it_says_what_it_is(asr: Asr) -> None:
    assert repr(asr) == "Asr(name='toy', language='ru', sample_rate=8000)"
    assert asr.spec.sample_rate == 8000
