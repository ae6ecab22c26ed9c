"""From a model and options to a recogniser; parts that do not fit are refused before any audio is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from rechka.backends.ort import OrtBackend
from rechka.errors import IncompatibleParts, UsageError
from rechka.models.whisper import WhisperModel
from rechka.options import DecoderOptions, SegmenterOptions
from rechka.protocols import AcousticModel, Decoder
from rechka.recognizers.blocks import PHRASED
from rechka.recognizers.chunked import ChunkRecognizer
from rechka.recognizers.phrased import PhraseRecognizer
from rechka.recognizers.textless import EmbeddingRecognizer, LabelRecognizer
from rechka.recognizers.whisper import WhisperRecognizer, check_beam
from rechka.segmentation.vad import SILERO_FILE, EnergyVad, SileroVad, Vad
from rechka.types import Encoded, ModelSpec

if TYPE_CHECKING:
    from rechka.decoding.lm import LanguageModel


def assemble(
    model: AcousticModel | WhisperModel,
    *,
    decoder: DecoderOptions | None = None,
    segmenter: SegmenterOptions | None = None,
    lm: LanguageModel | None = None,
    max_chunks: int | None = None,
    calibration: tuple[float, float] | None = None,
    vad: Vad | None = None,
) -> ChunkRecognizer | PhraseRecognizer | LabelRecognizer | EmbeddingRecognizer | WhisperRecognizer:
    """The recogniser for a model: ``PhraseRecognizer`` if it reads whole phrases (``spec.chunk`` is None).

    A model without tokens gets one for its labels or its embeddings (``textless.py``).

    Args:
        model: emits log-probs, or encoder frames for its ``transducer``.
        decoder: how they are searched. Hotwords given for a call are added to those named here.
        segmenter: where phrases end; by default what ``default_segmenter`` says.
        lm: language model for the beam search.
        max_chunks: see ``ChunkRecognizer`` and ``PhraseRecognizer``; None for the model's ``block`` or their own.
        calibration: see ``ChunkRecognizer``.
        vad: evidence for a model that reads whole phrases; None makes the one that ``segmenter.vad`` names.

    Raises:
        IncompatibleParts: parts that do not fit together.
        UsageError: options out of their range.
    """
    from rechka.decoding import build_decoder

    if isinstance(model, WhisperModel):
        return _whisper(model, decoder or DecoderOptions(kind="auto"), segmenter, calibration, vad)
    tokens = model.spec.tokens
    if tokens is None:
        if hasattr(model, "labels"):
            segmenter = segmenter or default_segmenter(model.spec)
            vad = vad or make_vad(segmenter.vad, model.spec.sample_rate)
            return LabelRecognizer(
                cast(Any, model), vad, segmenter, **({} if max_chunks is None else {"max_chunks": max_chunks})
            )
        if hasattr(model, "embed"):
            return EmbeddingRecognizer(model)
        raise IncompatibleParts("the model has no tokens, so nothing can be decoded", remedy="check the model's card")
    options = decoder or DecoderOptions()
    transducer = None
    if model.spec.emits is Encoded:
        transducer = getattr(model, "transducer", None)
        if transducer is None:
            raise IncompatibleParts("the model emits Encoded but has no transducer, so nothing can be decoded")

    # Streams that share a decoder are decoded together, so equal hotwords give the same one.
    @lru_cache(maxsize=8)
    def build(hotwords: tuple[tuple[str, float], ...]) -> Decoder[Any]:
        words = {**options.hotwords, **dict(hotwords)}
        return build_decoder(tokens, replace(options, hotwords=words), lm=lm, transducer=transducer)

    def factory(hotwords: Mapping[str, float] | None) -> Decoder[Any]:
        return build(tuple((hotwords or {}).items()))

    factory(None)  # a decoder that cannot be built is an error now, not with the first audio
    segmenter = segmenter or default_segmenter(model.spec)
    limit: dict[str, Any] = {} if max_chunks is None else {"max_chunks": max_chunks}
    if model.spec.chunk is not None:
        if max_chunks is None and hasattr(model, "block"):
            limit = {"max_chunks": model.block}
        return ChunkRecognizer(model, factory, segmenter, calibration=calibration, **limit)
    vad = vad or make_vad(segmenter.vad, model.spec.sample_rate)
    return PhraseRecognizer(model, factory, vad, segmenter, calibration=calibration, **limit)


def _whisper(
    model: WhisperModel,
    decoder: DecoderOptions,
    segmenter: SegmenterOptions | None,
    calibration: tuple[float, float] | None,
    vad: Vad | None,
) -> WhisperRecognizer:
    """Of a decoder's options Whisper has use for the kind of search, the width of its beam, and hotwords."""
    options = check_beam(decoder.kind, decoder.beam_width, model.options)
    options = replace(options, hotwords=(*options.hotwords, *decoder.hotwords))
    if vad is None and options.vad != "none":
        vad = make_vad(options.vad, model.spec.sample_rate)
    return WhisperRecognizer(model, options, vad=vad, segmenter_options=segmenter, calibration=calibration)


def default_segmenter(spec: ModelSpec) -> SegmenterOptions:
    """Where phrases end if nobody says otherwise: one set of values for log-probs as evidence, one for a VAD."""
    return SegmenterOptions() if spec.chunk is not None else PHRASED


def make_vad(kind: str, sample_rate: int) -> Vad:
    """A VAD by its name in ``SegmenterOptions.vad``.

    Raises:
        UsageError: an unknown name.
        IncompatibleParts: Silero for a sample rate other than 8000 and 16000 Hz.
    """
    if kind == "silero":
        return SileroVad(_silero_backend(), sample_rate)
    if kind == "energy":
        return EnergyVad(sample_rate)
    raise UsageError(f"vad must be 'silero' or 'energy', got {kind!r}")


@lru_cache(maxsize=1)
def _silero_backend() -> OrtBackend:
    """The graph, loaded once: it holds no state, and one thread is enough for it."""
    return OrtBackend(SILERO_FILE, threads=1)
