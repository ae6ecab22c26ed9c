"""T-one's package ``tone`` answered by rechka: same names, arguments, shapes, data types and kinds of errors.

    from rechka.compat.tone import StreamingCTCPipeline, read_audio

    pipeline = StreamingCTCPipeline.from_hugging_face()
    print(pipeline.forward_offline(read_audio("call.flac")))

Audio is int32 with values of 16 bits at 8 kHz, as there. ``docs/migrate.md`` tells what differs. For anything new use
``rechka.load("t-one")``: it takes any audio in any pieces, gives partials and word times.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rechka.backends.ort import OrtBackend
from rechka.compat.splitter import (
    SIZE,
    LogprobPhrase,
    StreamingLogprobSplitter,
    StreamingLogprobSplitterState,
    check,
)
from rechka.decoding import CtcBeam, CtcGreedy
from rechka.decoding.lm import LN10, LanguageModel, load_lm
from rechka.errors import AudioNotFound, BadSamples, ModelNotFound, UsageError, WrongType
from rechka.features.tone import SAMPLE_RATE
from rechka.hub.download import pull
from rechka.hub.registry import PREFERRED, Entry, find
from rechka.models.tone import CHUNK, HOP, LAG, TOKENS, ToneModel
from rechka.options import DecoderOptions
from rechka.protocols import Backend, Decoder
from rechka.timeline import Timeline
from rechka.types import F32, LogProbs

__all__ = [
    "BeamSearchCTCDecoder",
    "DecoderType",
    "GreedyCTCDecoder",
    "LogprobPhrase",
    "StreamingCTCModel",
    "StreamingCTCPipeline",
    "StreamingLogprobSplitter",
    "TextPhrase",
    "read_audio",
    "read_example_audio",
    "read_stream_example_audio",
]

Integers: TypeAlias = NDArray[np.int32]
_BEAM = DecoderOptions(beam_width=200, alpha=0.4, beta=0.9, unk_logp=-10.0 * 0.4 * LN10)
"""What T-one sets, and pyctcdecode's default for unknown words (base 10, weighted by alpha) in natural-log units."""


class DecoderType(Enum):
    """How log-probabilities become text."""

    GREEDY = "greedy"
    BEAM_SEARCH = "beam_search"


@dataclass
class TextPhrase:
    """A phrase with its times in seconds."""

    text: str
    start_time: float
    end_time: float


class StreamingCTCModel:
    """The acoustic model.

    Args:
        backend: the graph; the original takes an ONNX Runtime session here.
    Raises:
        BadModelFile: a graph of another family.
    """

    SAMPLE_RATE = SAMPLE_RATE
    MEAN_TIME_BIAS = LAG / SAMPLE_RATE
    AUDIO_CHUNK_SAMPLES = CHUNK
    FRAME_SIZE = HOP / SAMPLE_RATE
    STATE_SIZE = 219729

    def __init__(self, backend: Backend) -> None:
        self._zero = ToneModel(backend).initial_state().values
        self._backend = backend
        self.STATE_SIZE = len(self._zero)  # smaller models of the family have another

    @classmethod
    def from_hugging_face(cls) -> StreamingCTCModel:
        """The published model, pulled unless it is on disk."""
        return cls.from_local(cls.download_from_hugging_face())

    @classmethod
    def download_from_hugging_face(cls) -> str:
        """Path of the published model's file."""
        return str(_pulled().path("model"))

    @classmethod
    def from_local(cls, model_path: str | Path) -> StreamingCTCModel:
        """The model of an ONNX file.

        Raises:
            ModelNotFound, BadModelFile: no such file, or not a graph of T-one.
        """
        return cls(OrtBackend(Path(model_path)))

    def forward(self, audio_chunk: Integers, state: NDArray[Any] | None = None) -> tuple[F32, NDArray[Any]]:
        """Log-probs of 300 ms of several streams.

        Args:
            audio_chunk: (B, 2400, 1) int32 in [-32768, 32767].
            state: (B, STATE_SIZE) that the call before returned; None at the beginning.
        Returns:
            Log-probs (B, 10, 35) and the next state.
        Raises:
            WrongType: (a TypeError) no arrays.
            BadSamples, UsageError: (ValueErrors) another shape, data type or range.
        """
        check(audio_chunk, "audio_chunk", (None, CHUNK, 1), np.int32, BadSamples)
        if len(audio_chunk) and (audio_chunk.min() < -32768 or audio_chunk.max() > 32767):
            raise BadSamples(
                f"audio_chunk must lie in [-32768, 32767], got [{audio_chunk.min()}, {audio_chunk.max()}]",
                remedy="read_audio() gives such samples",
            )
        if state is None:
            state = np.tile(self._zero, (len(audio_chunk), 1))
        check(state, "state", (len(audio_chunk), self.STATE_SIZE), self._zero.dtype, UsageError)
        _, dtype = self._backend.inputs["signal"]
        out = self._backend.run({"signal": audio_chunk.astype(dtype, copy=False), "state": state})
        return out["logprobs"].astype(np.float32, copy=False), out["state_next"]


class GreedyCTCDecoder:
    """The best letter of every frame, repeats collapsed."""

    def __init__(self) -> None:
        self._decoder: Decoder[Any] = CtcGreedy(TOKENS)

    def forward(self, logprobs: F32) -> str:
        """Text of a phrase (L, 35).

        Raises:
            WrongType, UsageError: as ``StreamingLogprobSplitter.forward``.
        """
        check(logprobs, "logprobs", (None, SIZE), np.float32, UsageError)
        [beam] = self._decoder.advance([self._decoder.begin()], [LogProbs(logprobs)])
        return TOKENS.text(self._decoder.best(beam).tokens)


class BeamSearchCTCDecoder(GreedyCTCDecoder):
    """Beam search with an n-gram model, width 200.

    Args:
        lm: from ``rechka.decoding.load_lm``; the original takes pyctcdecode's decoder here.
    """

    def __init__(self, lm: LanguageModel) -> None:
        super().__init__()
        self._decoder = CtcBeam(TOKENS, _BEAM, lm=lm)

    @classmethod
    def from_hugging_face(cls) -> BeamSearchCTCDecoder:
        """With the published language model, 5.46 GB, pulled unless it is on disk."""
        return cls.from_local(cls.download_from_hugging_face())

    @classmethod
    def download_from_hugging_face(cls) -> str:
        """Path of the published language model's file."""
        return str(_pulled("lm").path("lm"))

    @classmethod
    def from_local(cls, model_path: str | Path) -> BeamSearchCTCDecoder:
        """With the language model of a file: KenLM binary, ARPA or ``.rlm``.

        Raises:
            ModelNotFound, BadLanguageModel: no such file, or no language model.
            MissingExtra: a KenLM binary, and the package kenlm is not installed.
        """
        if not Path(model_path).is_file():
            raise ModelNotFound(
                f"there is no language model {model_path}", remedy="take DecoderType.GREEDY, or put the file there"
            )
        return cls(load_lm(model_path))


class StreamingCTCPipeline:
    """Model, splitter and decoder in a row, for one stream at a time; the stream's state goes from call to call.

    Args:
        model: the acoustic model.
        logprob_splitter: cuts phrases.
        decoder: writes their text.
    """

    PADDING: int = CHUNK
    """Silence that the caller puts before and behind the audio; times count from behind the first."""
    CHUNK_SIZE: int = CHUNK
    StateType: TypeAlias = tuple[NDArray[Any], StreamingLogprobSplitterState]

    def __init__(
        self,
        model: StreamingCTCModel,
        logprob_splitter: StreamingLogprobSplitter,
        decoder: GreedyCTCDecoder | BeamSearchCTCDecoder,
    ) -> None:
        self.model = model
        self.logprob_splitter = logprob_splitter
        self.decoder = decoder
        self._timeline = Timeline(SAMPLE_RATE, HOP, self.PADDING, LAG)

    @classmethod
    def from_hugging_face(cls, *, decoder_type: DecoderType = DecoderType.BEAM_SEARCH) -> StreamingCTCPipeline:
        """The published model, pulled unless it is on disk; beam search also needs the language model, 5.46 GB.

        Raises:
            HubError: the download did not succeed; what came is kept.
        """
        beam = _is_beam(decoder_type)
        model = StreamingCTCModel.from_hugging_face()
        decoder = BeamSearchCTCDecoder.from_hugging_face() if beam else GreedyCTCDecoder()
        return cls(model, StreamingLogprobSplitter(), decoder)

    @staticmethod
    def download_from_hugging_face(dir_path: str | Path, only_acoustic: bool = False) -> None:
        """Copy the published files, ``model.onnx`` and unless ``only_acoustic`` ``kenlm.bin``, into a folder."""
        folder = Path(dir_path)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(StreamingCTCModel.download_from_hugging_face(), folder / "model.onnx")
        if not only_acoustic:
            shutil.copyfile(BeamSearchCTCDecoder.download_from_hugging_face(), folder / "kenlm.bin")

    @classmethod
    def from_local(
        cls, dir_path: str | Path, *, decoder_type: DecoderType = DecoderType.BEAM_SEARCH
    ) -> StreamingCTCPipeline:
        """The model of a folder: ``model.onnx``, and for beam search ``kenlm.bin`` or another language model.

        Raises:
            ModelNotFound: a file is not there.
            BadModelFile, BadLanguageModel, MissingExtra: a file that cannot be used.
        """
        beam, folder = _is_beam(decoder_type), Path(dir_path)
        model = StreamingCTCModel.from_local(folder / "model.onnx")
        if not beam:
            return cls(model, StreamingLogprobSplitter(), GreedyCTCDecoder())
        found = find(folder).on_disk()
        decoder = BeamSearchCTCDecoder.from_local(found.get("lm", folder / "kenlm.bin"))
        return cls(model, StreamingLogprobSplitter(), decoder)

    def forward(
        self, audio_chunk: Integers, state: StateType | None = None, *, is_last: bool = False
    ) -> tuple[list[TextPhrase], StateType]:
        """The phrases that end in the next 300 ms, and the state for the next call.

        Args:
            audio_chunk: (2400,) int32 in [-32768, 32767] at 8 kHz.
            state: what the call before returned; None at the beginning. Not modified.
            is_last: the audio ends with this chunk.
        Raises:
            WrongType: (a TypeError) no array, or a state that is no tuple.
            BadSamples, UsageError: (ValueErrors) another shape, data type or range.
        """
        check(audio_chunk, "audio_chunk", (CHUNK,), None, BadSamples)
        if not isinstance(state, (tuple, type(None))):
            raise WrongType(f"state must be a tuple or None, got {type(state).__name__}")
        heard, split = (None, None) if state is None else state
        logprobs, heard = self.model.forward(audio_chunk[None, :, None], heard)
        phrases, split = self.logprob_splitter.forward(logprobs[0], split, is_last=is_last)
        return [self._text_phrase(phrase) for phrase in phrases], (heard, split)

    def forward_offline(self, audio: Integers) -> list[TextPhrase]:
        """All phrases of a recording (n,) int32 at 8 kHz, any n; padding is put around it.

        Raises:
            WrongType: (a TypeError) no array.
            BadSamples: (a ValueError) another shape, data type or range.
        """
        check(audio, "audio", (None,), None, BadSamples)
        padded = np.pad(audio, (self.PADDING, self.PADDING + -len(audio) % CHUNK))
        phrases: list[TextPhrase] = []
        state: StreamingCTCPipeline.StateType | None = None
        for first in range(0, len(padded), CHUNK):
            chunk = padded[first : first + CHUNK]
            found, state = self.forward(chunk, state, is_last=first + CHUNK == len(padded))
            phrases += found
        return phrases

    def finalize(self, state: StateType | None) -> tuple[list[TextPhrase], StateType]:
        """The phrases that end when 300 ms of silence, the last, follow."""
        return self.forward(np.zeros(CHUNK, np.int32), state, is_last=True)

    def _text_phrase(self, phrase: LogprobPhrase) -> TextPhrase:
        start, end = (round(self._timeline.seconds(frame), 2) for frame in (phrase.start_frame, phrase.end_frame))
        return TextPhrase(self.decoder.forward(phrase.logprobs), start, end)


def read_audio(path_to_file: str | os.PathLike[str]) -> Integers:
    """A recording of any format and rate as (n,) int32 in [-32768, 32767] at 8 kHz, its channels averaged.

    Raises:
        AudioError: it cannot be read.
        MissingExtra: the format needs PyAV, which is not installed.
    """
    from rechka.audio import open_source

    parts = [chunk.samples for (chunk,) in open_source(path_to_file, sample_rate=SAMPLE_RATE)]
    samples: Integers = np.clip(np.rint(np.concatenate(parts) * 32768.0), -32768, 32767).astype(np.int32)
    return samples


def read_example_audio(path: str | os.PathLike[str] | None = None, *, long_audio: bool = False) -> Integers:
    """``read_audio`` of your own recording: the original's examples are not part of rechka.

    Raises:
        AudioNotFound: no path.
    """
    if path is None:
        which = "long" if long_audio else "short"
        raise AudioNotFound(
            f"rechka does not carry T-one's {which} example recording", remedy="give the path of a recording of yours"
        )
    return read_audio(path)


def read_stream_example_audio(
    path: str | os.PathLike[str] | None = None, *, long_audio: bool = False
) -> Iterator[Integers]:
    """The chunks (2400,) of a recording for ``StreamingCTCPipeline.forward``, padding on both sides included.

    Raises:
        AudioNotFound, AudioError: as ``read_example_audio``.
    """
    audio = read_example_audio(path, long_audio=long_audio)
    padded = np.pad(audio, (CHUNK, CHUNK + -len(audio) % CHUNK))
    yield from padded.reshape(-1, CHUNK)


def _pulled(*extra: str) -> Entry:
    """The published model with its files on disk."""
    return pull(find(PREFERRED), extra=extra).entry


def _is_beam(decoder_type: object) -> bool:
    if not isinstance(decoder_type, DecoderType):
        raise UsageError(f"decoder_type must be a DecoderType, got {decoder_type!r}")
    return decoder_type is DecoderType.BEAM_SEARCH
