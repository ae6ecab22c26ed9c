"""What the rules of Whisper decoding ask of the model: four calls. CTranslate2 fits it, and so does a test's script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rechka.types import F32


@dataclass(frozen=True, slots=True)
class Search:
    """How one call of ``Kernel.generate`` searches.

    Attributes:
        temperature: 0 for beam search, above it sampling.
        beam_size: hypotheses of the beam search, 1 for greedy.
        best_of: samples drawn at a temperature above 0; the likeliest is taken.
        patience: the search goes on until so many times ``beam_size`` hypotheses have ended.
        length_penalty: exponent of the length by which scores are divided when hypotheses are compared.
        repetition_penalty: above 1 makes tokens that occurred less likely.
        no_repeat_ngram: no n-gram of this length may occur twice; 0 switches it off.
        max_new: most tokens to generate.
        suppress: ids that may not occur; -1 stands for the model's own list.
    """

    temperature: float = 0.0
    beam_size: int = 5
    best_of: int = 5
    patience: float = 1.0
    length_penalty: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    max_new: int = 224
    suppress: tuple[int, ...] = (-1,)


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of a window.

    Attributes:
        tokens: without prompt and end.
        logprob: natural-log probability of all tokens and the end, summed.
        no_speech: probability of the no-speech token at the start of the transcript.
        truncated: the limit came before the end of the text.
    """

    tokens: tuple[int, ...]
    logprob: float
    no_speech: float
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where given tokens are in a window.

    Attributes:
        frames: for each token the position (20 ms) where it begins, and one more where the last one ends.
        probs: probability of each token given those before it.
    """

    frames: tuple[int, ...]
    probs: tuple[float, ...]


class Kernel(Protocol):
    """A Whisper model. Thread-safe. An encoded window is opaque to everyone else."""

    @property
    def multilingual(self) -> bool:
        """False for the ``.en`` models."""
        ...

    def encode(self, windows: Sequence[F32], /) -> list[Any]:
        """Each window (n,) of at most 30 s at 16 kHz, encoded."""
        ...

    def detect_language(self, encoded: Sequence[Any], /) -> list[dict[str, float]]:
        """For each window the probability of each language, by its code."""
        ...

    def generate(self, encoded: Sequence[Any], prompts: Sequence[Sequence[int]], search: Search, /) -> list[Generated]:
        """Text of each window after its prompt. The prompts have the same length and shape."""
        ...

    def align(
        self, encoded: Sequence[Any], start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int], /
    ) -> list[Alignment]:
        """Where the tokens of each text are.

        Args:
            encoded: windows.
            start: start of transcript, language and task, the same for all.
            texts: text tokens of each window, at least one.
            frames: mel frames (10 ms) of each window that hold audio, at least 2.
        """
        ...


@dataclass(frozen=True, slots=True)
class Special:
    """Ids of Whisper's special tokens. All ids below ``end`` are text.

    Attributes:
        end, start, previous, no_speech, no_stamps, transcribe, translate: as named in the paper.
        languages: code -> id.
        first_stamp: id of 0.00 s; the following ids are 20 ms apart.
        num_stamps: 1501, up to 30.00 s.
    """

    end: int
    start: int
    previous: int
    no_speech: int
    no_stamps: int
    transcribe: int
    translate: int
    languages: Mapping[str, int]
    first_stamp: int
    num_stamps: int = 1501

    @property
    def unwritten(self) -> tuple[int, ...]:
        """What no text may contain, whatever list a model or a user brings; the kernel sees to the other rules."""
        return (self.start, self.transcribe, self.translate, self.previous, self.no_speech)

    def is_text(self, token: int) -> bool:
        """True for tokens that are written out."""
        return 0 <= token < self.end

    def is_stamp(self, token: int) -> bool:
        """True for time stamps."""
        return self.first_stamp <= token < self.first_stamp + self.num_stamps

    def stamp(self, position: int) -> int:
        """Id of the time stamp at a position of 20 ms."""
        return self.first_stamp + min(max(position, 0), self.num_stamps - 1)

    def position(self, token: int) -> int:
        """Position of a time stamp."""
        return token - self.first_stamp


class Codec(Protocol):
    """Text to tokens and back."""

    @property
    def special(self) -> Special:
        """Ids of the special tokens."""
        ...

    def encode(self, text: str, /) -> list[int]:
        """Text tokens only."""
        ...

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of text tokens; bytes that are no UTF-8 become U+FFFD."""
        ...
