"""The recogniser for Whisper: recordings of any length, and live streams.

    packed       phrases that a VAD finds, packed into windows and decoded in batches; the default
    sequential   window after window, each knowing the text before it
    chunked      overlapping windows in batches, joined by their words
    live         where partials are wanted: every phrase a window of its own, shown while it is open

All of them share what makes a text trustworthy (``whisper_window``): retries at higher temperatures inside the batch,
guards against text that was made up, division of windows that hold too much, word times. Windows of many streams share
the model's calls; a stream's text depends on its audio alone, but for sampling at temperatures above zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from rechka.decoding.whisper import WhisperOptions
from rechka.decoding.whisper.prompt import language_code
from rechka.errors import IncompatibleParts, UsageError
from rechka.models.whisper import WhisperModel
from rechka.options import SegmenterOptions
from rechka.recognizers.asr import Asr
from rechka.recognizers.blocks import PHRASED
from rechka.recognizers.phrase_walk import Geometry
from rechka.recognizers.stream import Stream
from rechka.recognizers.whisper_live import live
from rechka.recognizers.whisper_modes import WINDOW, Chunked, Mode, Sequential, Setting, reported
from rechka.recognizers.whisper_packed import packed
from rechka.recognizers.whisper_window import RATE, Read, Window, WindowReader
from rechka.segmentation import FrameOptions, Segmenter
from rechka.segmentation.vad import EnergyVad, Vad
from rechka.text.confidence import calibrated
from rechka.timeline import Timeline
from rechka.types import F32, Event, Final, Segment, State, Word

BLOCK_S = 0.1
"""Audio is taken in blocks of about this length."""


@dataclass(frozen=True, slots=True)
class WhisperProgress:
    """How far a stream has come. A value: a step that fails leaves the old one in place."""

    mode: Any
    vad: State
    energy: State


class WhisperRecognizer:
    """Streams in, events out, for Whisper. Thread-safe for distinct streams.

    Args:
        model: kernel and codec.
        options: how to decode; None for those of the model.
        vad: speech detector at 16 kHz; None: no evidence for the guards, and no mode that needs phrases.
        segmenter_options: where phrases end.
        calibration: of the words' confidence, see ``rechka.text.confidence``; None for the raw one.

    Raises:
        IncompatibleParts: a VAD of another sample rate, or none where one is needed.
        UsageError: a language or task that the model does not have.
    """

    def __init__(
        self,
        model: WhisperModel,
        options: WhisperOptions | None = None,
        *,
        vad: Vad | None = None,
        segmenter_options: SegmenterOptions | None = None,
        calibration: tuple[float, float] | None = None,
    ) -> None:
        options = options or model.options
        special = model.codec.special
        if options.language and model.kernel.multilingual:
            options = replace(options, language=language_code(options.language, special))
        for code in options.languages:
            language_code(code, special)
        if vad is not None and vad.sample_rate != RATE:
            raise IncompatibleParts(
                f"Whisper hears {RATE} Hz, the VAD {vad.sample_rate} Hz", remedy="make the VAD for 16000 Hz"
            )
        if vad is None and options.mode == "packed":
            raise IncompatibleParts("the mode packed needs a VAD", remedy="give one, or choose the mode sequential")
        self.model, self.options, self.vad = model, options, vad
        self.segmenter_options, self.calibration = segmenter_options, calibration
        self.spec = model.spec
        self.reader = WindowReader(model.kernel, model.codec, options)
        self.step_samples = 512 if vad is None else vad.window
        self.windows = Timeline(RATE, self.step_samples)
        frames = FrameOptions.of(segmenter_options or PHRASED, self.windows)
        self.geometry, frames = Geometry.of(self.spec, self.step_samples, frames, options.partial_s)
        self.segmenter = Segmenter(frames)
        self.energy = (
            EnergyVad(RATE, window_s=self.step_samples / RATE)
            if options.look_again and options.mode == "packed" and options.vad != "energy"
            else None
        )
        self.block = self.step_samples * max(1, round(BLOCK_S * RATE / self.step_samples))
        batch = 1 if options.mode == "sequential" else options.batch_size  # windows that one step may decode
        self.max_chunks = max(1, batch * WINDOW // self.block)

    def with_options(self, **changes: Any) -> WhisperRecognizer:
        """The same model with other options.

        Raises:
            UsageError: an unknown option, or a value that it cannot have.
        """
        known = {name: getattr(self.options, name) for name in WhisperOptions.__dataclass_fields__}
        return WhisperRecognizer(
            self.model,
            WhisperOptions.parse({**known, **changes}),
            vad=self.vad,
            segmenter_options=self.segmenter_options,
            calibration=self.calibration,
        )

    def open(
        self,
        *,
        hotwords: Mapping[str, float] | None = None,
        channel: int = 0,
        speaker: str | None = None,
        partials: bool = True,
        limit_s: float | None = 30.0,
        min_silence_s: float | None = None,
        drive: Callable[[Stream], None] | None = None,
    ) -> Stream:
        """A new stream; see ``Stream`` for the arguments.

        With ``partials`` phrases are decoded one by one as they are spoken, whatever the mode; it needs a VAD. Hotwords
        become part of the prompt, those with a higher boost first; a boost means nothing else here.

        Raises:
            IncompatibleParts: partials without a VAD.
        """
        mode = self._mode(hotwords, channel, speaker, min_silence_s, partials=partials)
        return Stream(
            self.spec,
            progress=WhisperProgress(
                mode,
                None if self.vad is None else self.vad.initial_state(),
                None if self.energy is None else self.energy.initial_state(),
            ),
            decoder=cast(Any, None),  # windows are decoded by ``reader``
            channel=channel,
            speaker=speaker,
            partials=partials,
            limit_s=limit_s,
            drive=drive,
        )

    def _mode(
        self,
        hotwords: Mapping[str, float] | None,
        channel: int,
        speaker: str | None,
        min_silence_s: float | None,
        *,
        partials: bool,
    ) -> Mode:
        setting = Setting(
            self.options, self._hotwords(hotwords), self._opening(), self.model.codec.encode, self.step_samples,
            channel, speaker,
        )  # fmt: skip
        language = self.options.language if self.model.kernel.multilingual else "en"
        segmenter = self.segmenter.with_pause(min_silence_s, self.windows)
        if partials and self.vad is not None:
            return live(setting, language, segmenter, self.geometry)
        if self.options.mode == "packed":
            return packed(setting, language, segmenter, self.geometry, look=self.energy is not None)
        return (Sequential if self.options.mode == "sequential" else Chunked)(setting, language)

    def _hotwords(self, hotwords: Mapping[str, float] | None) -> tuple[str, ...]:
        given = hotwords or {}
        return (*sorted(given, key=lambda word: -given[word]), *self.options.hotwords)

    def _opening(self) -> tuple[int, ...]:
        text = self.options.prompt.strip()
        return tuple(self.model.codec.encode(f" {text}")) if text else ()

    def pending(self, stream: Stream) -> int:
        """Blocks that wait in a stream's inbox, the last of a finished stream counted as whole."""
        size, finished = stream.inbox.look()
        return -(-size // self.block) if finished else size // self.block

    def ready(self, stream: Stream) -> bool:
        """True if ``step`` would make progress on it."""
        return not stream.done and (stream.finished or len(stream.inbox) >= self.block)

    def step(self, streams: Sequence[Stream]) -> None:
        """Some audio of each of the ready streams, and every window that it completes.

        If anything raises, no stream has changed.
        """
        ready = [stream for stream in streams if self.ready(stream)]
        portions = [self._portion(stream) for stream in ready]
        modes = [stream.progress.mode.fork() for stream in ready]
        speech, vads = self._detect(self.vad, portions, [stream.progress.vad for stream in ready])
        energy, energies = self._detect(self.energy, portions, [stream.progress.energy for stream in ready])
        for mode, (audio, last), heard, loud in zip(modes, portions, speech, energy, strict=True):
            mode.hear(audio, heard, loud, last=last)
        events = self._work(modes)
        for stream, (audio, last), mode, vad, loud, told in zip(
            ready, portions, modes, vads, energies, events, strict=True
        ):
            stream.progress = WhisperProgress(mode, vad, loud)
            stream.inbox.drop(len(audio))
            stream.outbox.extend(told)
            stream.language = mode.language or None
            stream.done = last

    def run(self, streams: Sequence[Stream]) -> None:
        """Steps until none of the streams is ready."""
        while any(self.ready(stream) for stream in streams):
            self.step(streams)

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        """Phrases that others have cut, each decoded as it is; times count from its own start.

        Args:
            phrases: each (n,) at 16 kHz; one longer than 30 s is treated as a recording.
            hotwords: words or phrases to expect.
        Returns:
            A segment for each; its text is empty if nothing was recognised, or nothing was believed.
        """
        words, opening = self._hotwords(hotwords), self._opening()
        short = [i for i, audio in enumerate(phrases) if RATE // 50 <= len(audio) <= WINDOW]
        windows = [Window(phrases[i], self.options.language, opening, words, step=self.step_samples) for i in short]
        if not self.model.kernel.multilingual:
            windows = [replace(window, language="en") for window in windows]
        elif not self.options.language:
            for window in windows:
                window.language = self.reader.language([window])
        found = dict(zip(short, self.reader.read(windows), strict=True))
        return [
            self._whole(found[i], len(audio) / RATE) if i in found else self._long(audio, hotwords)
            for i, audio in enumerate(phrases)
        ]

    def _whole(self, read: Read, duration: float) -> Segment:
        words = tuple(word for line in read.lines for word in line.words)
        labels = read.lines[0].labels() if read.lines else {}
        if read.dropped:
            labels["dropped"] = reported([(line.start, line.end, line.text, line.signs) for line in read.dropped])
        text = " ".join(line.text for line in read.lines)
        return self._calibrated(Segment(text, 0.0, duration, words, labels=labels))

    def _long(self, audio: F32, hotwords: Mapping[str, float] | None) -> Segment:
        stream = self.open(hotwords=hotwords, partials=False, limit_s=None)
        stream.feed(audio)
        stream.finish()
        self.run([stream])
        segments = [event.segment for event in stream.take() if isinstance(event, Final)]
        words = tuple(word for segment in segments for word in segment.words)
        return Segment(" ".join(segment.text for segment in segments), 0.0, len(audio) / RATE, words)

    def _portion(self, stream: Stream) -> tuple[F32, bool]:
        """The audio of the next step, and whether it is the last."""
        size, finished = stream.inbox.look()
        most = self.max_chunks * self.block
        take = min(size, most) if finished else min(size // self.block * self.block, most)
        return stream.inbox.peek(take), finished and take == size

    def _detect(
        self, vad: Vad | None, portions: Sequence[tuple[F32, bool]], states: Sequence[State]
    ) -> tuple[list[F32 | None], list[State]]:
        """Probabilities of the windows that the audio completes; the last one of a stream is filled up."""
        if vad is None:
            return [None for _ in portions], list(states)
        silence = np.zeros(vad.window - 1, np.float32)
        heard, after = vad.step([np.concatenate([a, silence]) if last else a for a, last in portions], states)
        return list(heard), after

    def _work(self, modes: Sequence[Any]) -> list[list[Event]]:
        """Windows of all streams, until no stream has any that can be decoded; and the events of each stream."""
        events: list[list[Event]] = [[] for _ in modes]
        working = list(range(len(modes)))
        while working:
            for i in working:
                self._vote(modes[i])
            windows = [modes[i].windows() if modes[i].language else [] for i in working]
            reads = self.reader.read([window for of_one in windows for window in of_one])
            going = []
            for i, of_one in zip(working, windows, strict=True):
                told = modes[i].take(reads[: len(of_one)])
                reads = reads[len(of_one) :]
                events[i] += [self._finished(event) for event in told]
                if of_one:
                    going.append(i)
            working = going
        return events

    def _vote(self, mode: Any) -> None:
        if mode.undecided and self.model.kernel.multilingual:
            voters = mode.voters()
            if voters:
                mode.language = self.reader.language(voters)

    def _finished(self, event: Event) -> Event:
        return Final(self._calibrated(event.segment)) if isinstance(event, Final) else event

    def _calibrated(self, segment: Segment) -> Segment:
        if self.calibration is None:
            return segment

        def told(word: Word) -> Word:
            raw = word.confidence
            return word if raw is None or self.calibration is None else replace(
                word, confidence=calibrated(raw, self.calibration)
            )  # fmt: skip

        return replace(segment, words=tuple(told(word) for word in segment.words))


class WhisperAsr(Asr):
    """Whisper as users hold it: ``Asr``, and ``with_options`` for what other models do not have."""

    recognizer: WhisperRecognizer

    def with_options(self, **options: Any) -> WhisperAsr:
        """The same loaded model with other options; fields of ``WhisperOptions``.

            english = asr.with_options(task="translate")
            careful = asr.with_options(language="ru", mode="sequential", prompt="Совещание по бюджету.")

        Raises:
            UsageError: an unknown option, or a value that it cannot have.
        """
        recognizer = self.recognizer.with_options(**options)
        vad = recognizer.options.vad
        if vad != self.recognizer.options.vad:
            from rechka.recognizers.assemble import make_vad

            made = None if vad == "none" else make_vad(vad, RATE)
            recognizer = WhisperRecognizer(
                recognizer.model, recognizer.options, vad=made, segmenter_options=recognizer.segmenter_options,
                calibration=recognizer.calibration,
            )  # fmt: skip
        other = WhisperAsr(recognizer, name=self.name, language=recognizer.options.language or self.language)
        other.note = self.note
        return other


def check_beam(kind: str, width: int, options: WhisperOptions) -> WhisperOptions:
    """Whisper's options with what a ``DecoderOptions`` says: greedy, or a beam of a given width.

    Raises:
        UsageError: a beam that is wider than anyone can use.
    """
    if kind == "greedy":
        return replace(options, beam_size=1)
    if kind == "beam":
        if width > 64:
            raise UsageError(f"Whisper's beam may hold at most 64 hypotheses, got {width}", remedy="5 is usual")
        return replace(options, beam_size=width)
    return options
