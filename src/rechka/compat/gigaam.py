"""SberDevices' package ``gigaam`` answered by rechka, on ONNX Runtime: same names, arguments, results.

    from rechka.compat import gigaam

    model = gigaam.load_model("v3_e2e_rnnt")
    print(model.transcribe("call.wav"))

Arrays are NumPy's instead of torch's, of the same shape and type. ``docs/migrate.md`` tells what differs. For anything
new use ``rechka.load("gigaam-v3-rnnt")``: it takes recordings of any length, streams, and finds hotwords.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.compat.gigaam_models import Loaded, open_model
from rechka.decoding import TransducerGreedy
from rechka.errors import AudioTooLong, BadSamples, IncompatibleParts, UsageError
from rechka.models.gigaam import GigaAm, GigaAmEmotion
from rechka.segmentation import Close, Cut, FrameOptions, Segmenter
from rechka.segmentation.longform import LongformOptions, merge_spans, samples_of
from rechka.segmentation.vad import speech_probability
from rechka.text.words import word_frames
from rechka.timeline import Timeline
from rechka.types import F32, Frames, LogProbs, Tokens

__all__ = [
    "GigaAM",
    "GigaAMASR",
    "GigaAMEmo",
    "LongformTranscriptionResult",
    "Segment",
    "TranscriptionResult",
    "Word",
    "format_time",
    "load_audio",
    "load_model",
]

SAMPLE_RATE = 16000
LONGFORM_THRESHOLD = 25 * SAMPLE_RATE
"""Samples that ``transcribe`` takes at most."""

logger = logging.getLogger(__name__)


@dataclass
class Word:
    """A word with its times in seconds."""

    text: str
    start: float
    end: float


@dataclass
class TranscriptionResult:
    """Text of a short recording; words if they were asked for."""

    text: str
    words: list[Word] | None = None

    def __str__(self) -> str:
        return self.text


@dataclass
class Segment:
    """A piece of a long recording, times in seconds."""

    text: str
    start: float
    end: float
    words: list[Word] | None = None


@dataclass
class LongformTranscriptionResult:
    """The pieces of a long recording, in order."""

    segments: list[Segment]

    @property
    def words(self) -> list[Word]:
        """Words of all segments."""
        return [word for segment in self.segments for word in segment.words or []]

    @property
    def has_word_timestamps(self) -> bool:
        """True if words were asked for and there is a segment."""
        return bool(self.segments) and self.segments[0].words is not None

    @property
    def text(self) -> str:
        """All segments, joined by spaces."""
        return " ".join(segment.text for segment in self.segments)

    def __str__(self) -> str:
        return self.text

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __len__(self) -> int:
        return len(self.segments)


class GigaAM:
    """A model of the family; on its own the bare encoder.

    Args:
        loaded: the model with its name and files.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._model: GigaAm | GigaAmEmotion = loaded.model

    def prepare_wav(self, wav_file: Any) -> tuple[F32, NDArray[np.int64]]:
        """A recording as ``forward`` takes it: samples (1, n) and their number (1,).

        Args:
            wav_file: path, bytes, file object, or (array, sample_rate).
        Raises:
            AudioError: it cannot be read.
        """
        wav = load_audio(wav_file)
        return wav[None], np.array([len(wav)])

    def forward(self, features: Any, feature_lengths: Any) -> tuple[F32, NDArray[np.int32]]:
        """Encoder frames of a batch.

        Args:
            features: samples (B, n) in [-1, 1] at 16 kHz, padded; the name is the original's.
            feature_lengths: valid samples of each, (B,).
        Returns:
            Frames (B, D, T), zero behind the end of an item, and how many are valid (B,).
        Raises:
            BadSamples: other shapes, or lengths that do not fit.
            IncompatibleParts: a CTC or emotion graph, which does not give its encoder's frames.
        """
        wavs, lengths = np.asarray(features, np.float32), np.asarray(feature_lengths)
        if wavs.ndim != 2 or lengths.shape != wavs.shape[:1] or (lengths > wavs.shape[1]).any() or (lengths < 0).any():
            raise BadSamples(
                f"forward takes samples (B, n) and lengths (B,) up to n, got shapes {wavs.shape} and {lengths.shape}",
                remedy="prepare_wav() gives both",
            )
        frames = [self._embed(wav[:length]) for wav, length in zip(wavs, lengths, strict=True)]
        counts = np.array([len(values) for values in frames], np.int32)
        width = frames[0].shape[1] if frames else 0
        encoded = np.zeros((len(frames), width, counts.max(initial=0)), np.float32)
        for row, values in zip(encoded, frames, strict=True):
            row[:, : len(values)] = values.T
        return encoded, counts

    def embed_audio(self, wav_file: Any) -> tuple[F32, NDArray[np.int32]]:
        """Encoder frames (1, D, T) of a recording of any length, one per 40 ms, and T as (1,).

        Raises:
            IncompatibleParts: as ``forward``.
            AudioError: it cannot be read.
        """
        values = self._embed(load_audio(wav_file))
        return np.ascontiguousarray(values.T)[None], np.array([len(values)], np.int32)

    def to_onnx(self, dir_path: str | Path = ".", dtype: Any = "float32") -> None:
        """Put the ONNX files into a folder under the names that the original exports them with, the vocabulary beside.

        Raises:
            UsageError: a ``dtype`` other than float32.
        """
        if str(getattr(dtype, "__name__", dtype)).rpartition(".")[2] != "float32":
            raise UsageError(f"the graphs are float32, got dtype {dtype}", remedy="leave dtype out")
        folder = Path(dir_path)
        folder.mkdir(parents=True, exist_ok=True)
        name, files = self._loaded.name, self._loaded.files
        single = self._loaded.task in ("ctc", "emo")
        for role, part in (("model", ""), ("encoder", "_encoder"), ("decoder", "_decoder"), ("joiner", "_joint")):
            if (path := files.get(role)) is not None:
                shutil.copyfile(path, folder / f"{name}{'' if single else part}.onnx")
                data = path.with_name(f"{path.name}.data")  # weights of more than two gigabytes
                if data.is_file():
                    shutil.copyfile(data, folder / data.name)
        if (tokens := files.get("tokens")) is not None:
            shutil.copyfile(
                tokens, folder / f"{name}_{'tokenizer.model' if tokens.suffix == '.model' else 'vocab.txt'}"
            )

    def _embed(self, wav: F32) -> F32:
        if not isinstance(self._model, GigaAm):
            raise IncompatibleParts("the emotion model gives no frames", remedy='load_model("v3_ssl") gives them')
        return self._model.embed(wav)


class GigaAMASR(GigaAM):
    """Speech recognition: CTC or RNN-T, greedy, ten symbols per frame at most."""

    def transcribe(self, wav_file: Any, word_timestamps: bool = False) -> TranscriptionResult:
        """The text of a recording of up to 25 s.

        Args:
            wav_file: as ``prepare_wav``.
            word_timestamps: also the words with their times.
        Raises:
            AudioTooLong: (a ValueError) more than 25 s.
            AudioError: it cannot be read.
        """
        wav = load_audio(wav_file)
        if len(wav) > LONGFORM_THRESHOLD:
            raise AudioTooLong(
                f"transcribe() takes up to 25 s, got {len(wav) / SAMPLE_RATE:.1f} s", remedy="use transcribe_longform()"
            )
        [(text, words)] = self._decode([wav], word_timestamps)
        return TranscriptionResult(text, words)

    def transcribe_longform(
        self,
        wav_file: Any,
        word_timestamps: bool = False,
        fr_batch_size: int = 16,
        fr_num_workers: int = 0,
        **kwargs: float,
    ) -> LongformTranscriptionResult:
        """The text of a long recording, cut where Silero VAD hears pauses and joined to chunks by the original's rule.

        Args:
            wav_file: as ``prepare_wav``.
            word_timestamps: also the words with their times, rounded to milliseconds.
            fr_batch_size: chunks that are recognised together.
            fr_num_workers: ignored; audio is decoded here.
            kwargs: ``max_duration``, ``min_duration``, ``strict_limit_duration``, ``new_chunk_threshold``, seconds.
        Raises:
            UsageError: an unknown argument, or one out of its range.
            AudioError: it cannot be read.
        """
        names = {
            "max_duration": "max_s",
            "min_duration": "min_s",
            "strict_limit_duration": "limit_s",
            "new_chunk_threshold": "drop_s",
        }
        if unknown := sorted(set(kwargs) - set(names)):
            raise UsageError(f"transcribe_longform() has no argument {', '.join(unknown)}")
        if fr_batch_size < 1:
            raise UsageError(f"fr_batch_size must be at least 1, got {fr_batch_size}")
        limits = LongformOptions(**{names[key]: value for key, value in kwargs.items()})
        wav = load_audio(wav_file)
        chunks = merge_spans(_speech(wav), len(wav) / SAMPLE_RATE, limits)
        segments: list[Segment] = []
        for first in range(0, len(chunks), fr_batch_size):
            batch = chunks[first : first + fr_batch_size]
            decoded = self._decode([wav[samples_of(chunk, SAMPLE_RATE)] for chunk in batch], word_timestamps)
            segments += [
                Segment(text, start, end, None if words is None else [_moved(word, start) for word in words])
                for (start, end), (text, words) in zip(batch, decoded, strict=True)
            ]
        return LongformTranscriptionResult(segments)

    def _decode(self, audio: Sequence[F32], with_words: bool) -> list[tuple[str, list[Word] | None]]:
        """Text and words of each item."""
        model = self._model
        assert isinstance(model, GigaAm)
        tokens = model.spec.tokens
        assert tokens is not None
        frames, _ = model.step(audio, [0 for _ in audio])
        found = []
        for wav, piece, (ids, places) in zip(audio, frames, self._greedy(frames, tokens), strict=True):
            text = tokens.text(ids).removeprefix(" " if tokens.pieces else "")
            shift = len(wav) / SAMPLE_RATE / max(1, len(piece))  # the original's, not exactly 40 ms
            words = [Word(word, start * shift, end * shift) for word, start, end in word_frames(ids, places, tokens)]
            found.append((text, words if with_words else None))
        return found

    def _greedy(self, frames: Sequence[Frames], tokens: Tokens) -> Iterator[tuple[list[int], list[int]]]:
        """Tokens and their frames: in CTC the first frame of a run, where rechka itself tells the loudest."""
        assert isinstance(self._model, GigaAm)
        if self._model.transducer is None:
            for piece in frames:
                assert isinstance(piece, LogProbs)
                winners = piece.values.argmax(axis=1)
                before = np.concatenate([[tokens.blank], winners[:-1]])
                places = np.flatnonzero((winners != tokens.blank) & (winners != before))
                yield winners[places].tolist(), places.tolist()
            return
        search = TransducerGreedy(self._model.transducer, tokens)
        for beam in search.advance([search.begin() for _ in frames], frames):
            best = search.best(beam)
            yield list(best.tokens), list(best.frames)


class GigaAMEmo(GigaAM):
    """Emotion of speech."""

    def get_probs(self, wav_file: Any) -> dict[str, float]:
        """Probability of each emotion in a recording.

        Args:
            wav_file: as ``prepare_wav``.
        Raises:
            AudioError: it cannot be read.
        """
        assert isinstance(self._model, GigaAmEmotion)
        [labels] = self._model.labels([load_audio(wav_file)])
        probabilities: dict[str, float] = labels["emotion"]
        return probabilities


def load_model(
    model_name: str | Path,
    fp16_encoder: bool = True,
    use_flash: bool | None = False,
    device: Any = None,
    download_root: str | Path | None = None,
) -> GigaAM | GigaAMASR | GigaAMEmo:
    """A model by its published name, or from a path.

    Args:
        model_name: such as ``"v3_e2e_rnnt"``, ``"ctc"`` (the newest), ``"emo"``; or a folder with ONNX files or a
            converted model, or a checkpoint, also a fine-tuned one.
        fp16_encoder: no effect: the graphs are what they are.
        use_flash: no effect.
        device: ``"cpu"``, ``"cuda"`` or a torch device; None takes CUDA where ONNX Runtime has it.
        download_root: folder where ``NAME.ckpt`` and ``NAME_tokenizer.model`` may lie already.
    Raises:
        UsageError: (a ValueError) an unknown name.
        HubError: a download that did not succeed; what came is kept.
        MissingExtra: a checkpoint has to be converted, and torch is not installed.
        ModelNotFound, BadModelFile: a path at which no model is.
    """
    if use_flash:
        logger.warning("use_flash has no effect on ONNX Runtime")
    loaded = open_model(model_name, device=device, download_root=download_root)
    kind = {"ssl": GigaAM, "emo": GigaAMEmo}.get(loaded.task, GigaAMASR)
    return kind(loaded)


def load_audio(audio_path: Any, sample_rate: int = SAMPLE_RATE) -> F32:
    """A recording as (n,) float32 in [-1, 1], its channels averaged.

    Args:
        audio_path: path, bytes, file object, or (array, sample_rate).
        sample_rate: wanted.
    Raises:
        AudioError: it cannot be read.
    """
    from rechka.audio import open_source

    return np.concatenate([chunk.samples for (chunk,) in open_source(audio_path, sample_rate=sample_rate)])


def format_time(seconds: float) -> str:
    """``MM:SS:cc``, from one hour on ``HH:MM:SS:cc``; cc are hundredths, cut off, as the original has them."""
    minutes, second = int(seconds % 3600 // 60), seconds % 60
    text = f"{minutes:02}:{int(second):02}:{int((second - int(second)) * 100):02}"
    return f"{int(seconds // 3600):02}:{text}" if seconds >= 3600 else text


def _moved(word: Word, start: float) -> Word:
    return Word(word.text, round(word.start + start, 3), round(word.end + start, 3))


def _speech(wav: F32) -> list[tuple[float, float]]:
    """Start and end of every stretch of speech, seconds, with a little silence on both sides; in order."""
    from rechka.recognizers.assemble import make_vad
    from rechka.recognizers.blocks import PHRASED

    vad = make_vad("silero", SAMPLE_RATE)
    clock = Timeline(SAMPLE_RATE, vad.window)
    options = FrameOptions.of(PHRASED, clock)
    segmenter = Segmenter(options)
    actions, state = segmenter.step(segmenter.initial_state(), speech_probability(vad, wav))
    rest, _ = segmenter.flush(state)
    spans: list[tuple[float, float]] = []
    for action in [*actions, *rest]:
        if isinstance(action, (Close, Cut)):
            begin = clock.seconds(action.start - options.expand)
            end = action.end + (options.expand if isinstance(action, Close) else 0)  # a cut may go through speech
            spans.append((max(begin, spans[-1][1]) if spans else begin, clock.seconds(end)))
    return spans
