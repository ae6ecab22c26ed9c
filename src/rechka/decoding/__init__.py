"""Searches over frames: CTC and transducer, greedy and beam; language models, hotwords."""

from __future__ import annotations

from typing import Any

from rechka.decoding.beam import CtcBeam
from rechka.decoding.greedy import CtcGreedy
from rechka.decoding.lm import LanguageModel, load_lm
from rechka.decoding.transducer import TransducerGreedy
from rechka.decoding.transducer_beam import TransducerBeam
from rechka.errors import IncompatibleParts, UsageError
from rechka.options import DecoderOptions
from rechka.protocols import Decoder, Transducer
from rechka.types import Tokens

__all__ = ["CtcBeam", "CtcGreedy", "LanguageModel", "TransducerBeam", "TransducerGreedy", "build_decoder", "load_lm"]


def build_decoder(
    tokens: Tokens,
    options: DecoderOptions,
    *,
    lm: LanguageModel | None = None,
    transducer: Transducer | None = None,
) -> Decoder[Any]:
    """The decoder that the options name: over log-probs, or with a transducer over encoder frames.

    Raises:
        UsageError: an unknown kind, an option out of range, or hotwords with a greedy decoder.
        IncompatibleParts: a language model for a vocabulary without a space, or for a transducer.
    """
    if transducer is not None and lm is not None:
        raise IncompatibleParts(
            "a transducer's search takes no language model", remedy="leave the file role 'lm' out of the card"
        )
    kind = options.kind
    if kind == "auto":
        # With neither, the beam finds what greedy search finds, many times slower.
        kind = "beam" if lm is not None or options.hotwords else "greedy"
    if kind == "beam":
        if transducer is not None:
            return TransducerBeam(transducer, tokens, options)
        return CtcBeam(tokens, options, lm=lm)
    if kind == "greedy":
        if options.hotwords:
            raise UsageError("a greedy decoder cannot take hotwords", remedy="choose kind = 'beam'")
        return CtcGreedy(tokens) if transducer is None else TransducerGreedy(transducer, tokens)
    raise UsageError(f"decoder kind must be 'greedy', 'beam' or 'auto', got {options.kind!r}")
