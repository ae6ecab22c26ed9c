"""Transducer searches: greedy and modified beam search over encoder frames, for many streams at once.

Being written: signatures first. ``rechka.protocols.Transducer`` is what they ask of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rechka.options import DecoderOptions
from rechka.protocols import Transducer
from rechka.types import Encoded, Frames, Hypothesis, Tokens


class TransducerGreedy:
    """A ``protocols.Decoder`` over ``Encoded`` that takes the best token at every step."""

    consumes: type[Frames] = Encoded

    def __init__(self, transducer: Transducer, tokens: Tokens) -> None:
        self.transducer = transducer
        self.tokens = tokens

    def begin(self) -> Any:
        """Nothing read."""
        raise NotImplementedError

    def advance(self, beams: Sequence[Any], frames: Sequence[Frames], /) -> list[Any]:
        """Each beam moved on over its own frames, all streams together."""
        raise NotImplementedError

    def best(self, beam: Any, /) -> Hypothesis:
        """The only hypothesis."""
        raise NotImplementedError

    def nbest(self, beam: Any, n: int, /) -> list[Hypothesis]:
        """The only hypothesis, in a list."""
        raise NotImplementedError

    def stable(self, beam: Any, /) -> int:
        """All tokens."""
        raise NotImplementedError


class TransducerBeam(TransducerGreedy):
    """A ``protocols.Decoder`` over ``Encoded``: modified beam search with hotwords and n-best."""

    def __init__(self, transducer: Transducer, tokens: Tokens, options: DecoderOptions | None = None) -> None:
        super().__init__(transducer, tokens)
        self.options = options or DecoderOptions()
