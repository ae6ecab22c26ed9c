"""From a model and options to a recogniser; parts that do not fit are refused before any audio is read."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rechka.errors import IncompatibleParts
from rechka.options import DecoderOptions, SegmenterOptions
from rechka.protocols import AcousticModel, Decoder
from rechka.recognizers.chunked import ChunkRecognizer

if TYPE_CHECKING:
    from rechka.decoding.lm import LanguageModel


def assemble(
    model: AcousticModel,
    *,
    decoder: DecoderOptions | None = None,
    segmenter: SegmenterOptions | None = None,
    lm: LanguageModel | None = None,
    max_chunks: int = 16,
    calibration: tuple[float, float] | None = None,
) -> ChunkRecognizer:
    """The recogniser for a model.

    Args:
        model: emits log-probs chunk by chunk.
        decoder: how they are searched. Hotwords given for a call are added to those named here.
        segmenter: where phrases end.
        lm: language model for the beam search.
        max_chunks: see ``ChunkRecognizer``.
        calibration: see ``ChunkRecognizer``.

    Raises:
        IncompatibleParts: parts that do not fit together.
        UsageError: options out of their range.
    """
    from rechka.decoding import build_decoder

    tokens = model.spec.tokens
    if tokens is None:
        raise IncompatibleParts("the model has no tokens, so nothing can be decoded", remedy="check the model's card")
    options = decoder or DecoderOptions()

    # Streams that share a decoder are decoded together, so equal hotwords give the same one.
    @lru_cache(maxsize=8)
    def build(hotwords: tuple[tuple[str, float], ...]) -> Decoder[Any]:
        return build_decoder(tokens, replace(options, hotwords={**options.hotwords, **dict(hotwords)}), lm=lm)

    build(())  # a decoder that cannot be built is an error now, not with the first audio
    return ChunkRecognizer(
        model, lambda hotwords: build(tuple((hotwords or {}).items())), segmenter, max_chunks=max_chunks
    )
