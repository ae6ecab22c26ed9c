"""Searches over frames: CTC greedy and beam, language models, hotwords."""

from __future__ import annotations

from typing import Any

from rechka.decoding.beam import CtcBeam
from rechka.decoding.greedy import CtcGreedy
from rechka.decoding.lm import LanguageModel, load_lm
from rechka.errors import UsageError
from rechka.options import DecoderOptions
from rechka.protocols import Decoder
from rechka.types import Tokens

__all__ = ["CtcBeam", "CtcGreedy", "LanguageModel", "build_decoder", "load_lm"]


def build_decoder(tokens: Tokens, options: DecoderOptions, *, lm: LanguageModel | None = None) -> Decoder[Any]:
    """The CTC decoder that the options name.

    Raises:
        UsageError: an unknown kind, an option out of range, or hotwords with a greedy decoder.
        IncompatibleParts: a language model for a vocabulary without a space.
    """
    kind = options.kind
    if kind == "auto":
        # With neither, the beam finds what greedy search finds, many times slower.
        kind = "beam" if lm is not None or options.hotwords else "greedy"
    if kind == "beam":
        return CtcBeam(tokens, options, lm=lm)
    if kind == "greedy":
        if options.hotwords:
            raise UsageError("a greedy decoder cannot take hotwords", remedy="choose kind = 'beam'")
        return CtcGreedy(tokens)
    raise UsageError(f"decoder kind must be 'greedy', 'beam' or 'auto', got {options.kind!r}")
