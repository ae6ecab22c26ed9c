"""The values that travel through the house.

Shapes: n samples, T frames, V vocabulary, D width. Samples are float32 mono in [-1, 1]; times are seconds;
bare integers are indexes in samples or frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

F32: TypeAlias = NDArray[np.float32]
"""A float32 array."""


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """A piece of one channel: ``samples`` (n,) in [-1, 1] and the index of its first sample in the stream."""

    samples: F32
    sample_rate: int
    start: int = 0

    @property
    def end(self) -> int:
        """Index one past the last sample."""
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True)
class LogProbs:
    """CTC output: ``values`` (T, V) natural-log probabilities, each row summing to one, and the first frame's index."""

    values: F32
    start: int = 0

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoder output: ``values`` (T, D) and the first frame's index."""

    values: F32
    start: int = 0

    def __len__(self) -> int:
        return len(self.values)


_UNSPOKEN = {"<unk>": " \u2047 ", "<s>": "", "</s>": ""}
"""Pieces that stand for no letters, and what SentencePiece writes for them."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A CTC or transducer vocabulary.

    Attributes:
        symbols: text of each id, the blank's entry being ``""``. Space is ``" "``, also where a SentencePiece piece
            writes U+2581.
        blank: id of the blank.
        pieces: True for SentencePiece pieces: a word begins with a piece that begins with a space. False for
            characters: a space stands between words.
    """

    symbols: tuple[str, ...]
    blank: int
    pieces: bool = False

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def space(self) -> int | None:
        """Id of the word delimiter, or None if there is none, as in a vocabulary of pieces."""
        return self.symbols.index(" ") if " " in self.symbols and not self.pieces else None

    @property
    def silent(self) -> tuple[int, ...]:
        """Ids that are counted as silence: the blank and the space."""
        return (self.blank,) if self.space is None else (self.space, self.blank)

    def opens(self, token: int) -> bool:
        """True if the word before is over with this token: a space, or a piece that begins with one."""
        return self.symbols[token][:1].isspace()

    def text(self, ids: Iterable[int]) -> str:
        """The ids as text, blanks left out, nothing collapsed; pieces may leave a space at the beginning."""
        symbols = (self.symbols[i] for i in ids if i != self.blank)
        return "".join(_UNSPOKEN.get(symbol, symbol) for symbol in symbols) if self.pieces else "".join(symbols)


@dataclass(frozen=True, slots=True)
class Span:
    """Frames or samples from ``start`` up to, not including, ``end``."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the outside must know of an acoustic model. All lengths are in samples at ``sample_rate``.

    Attributes:
        hop: samples per output frame.
        chunk: samples that one step reads, or None if the model wants a whole phrase.
        shift: samples by which consecutive steps advance; equals ``chunk`` unless steps overlap.
        pad: silence to put before the audio, and again after it, so that its edges are heard.
        lag: how late the model emits a letter after it was spoken, on average.
        max_len: longest input of one call, or None.
        tokens: vocabulary, or None for a model that emits no text.
        emits: ``LogProbs`` or ``Encoded``.
        tail: silence to put behind a stream, where that is more than ``pad``.
    """

    sample_rate: int
    hop: int
    chunk: int | None
    shift: int | None
    pad: int
    lag: int
    max_len: int | None
    tokens: Tokens | None
    emits: type[LogProbs] | type[Encoded]
    tail: int = 0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A decoded token sequence.

    Attributes:
        tokens: ids without blanks, repeats collapsed.
        frames: for each token the frame (absolute index) where it is loudest.
        logprobs: for each token its log-probability there, <= 0; language model not included.
        score: total score of the search; greedy: sum over frames of the best log-probability.
        posteriors: for each token how sure the search is of the word it belongs to, in [0, 1]; empty if it cannot tell.
    """

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    posteriors: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its times in seconds and a confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The word as in the JSON contract; seconds and confidence with three decimals."""
        return {
            "word": self.text,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "confidence": None if self.confidence is None else round(self.confidence, 3),
        }


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded phrase."""

    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    speaker: str | None = None
    channel: int = 0
    labels: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The segment as in the JSON contract."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "text": self.text,
            "channel": self.channel,
            "speaker": self.speaker,
            "words": [word.to_dict() for word in self.words],
            "labels": dict(self.labels),
        }


@dataclass(frozen=True, slots=True)
class Transcript:
    """The text of one recording. ``str(transcript)`` is the bare text; ``duration`` is in seconds."""

    segments: tuple[Segment, ...]
    language: str
    model: str
    duration: float
    truncated: bool = False
    """The input broke off before its end; what was decoded until then is here."""

    @property
    def text(self) -> str:
        """All segments joined by spaces."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def words(self) -> tuple[Word, ...]:
        """All words in order of their segments."""
        return tuple(word for segment in self.segments for word in segment.words)

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """The transcript as in the JSON contract."""
        return {
            "model": self.model,
            "language": self.language,
            "duration": round(self.duration, 3),
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
        }

    def save(self, path: str | Path) -> Path:
        """Write to ``path`` in the format its suffix names (txt, json, srt, vtt, tsv, ctm); whole or not at all.

        Raises:
            UsageError: a suffix that names no format.
            OutputError: the file cannot be written.
        """
        from rechka.formats import save  # formats know types, not the reverse

        return save(self, path)


@dataclass(frozen=True, slots=True)
class SpeechStart:
    """Speech began at ``time`` seconds."""

    time: float
    channel: int = 0


@dataclass(frozen=True, slots=True)
class Partial:
    """The open phrase so far. ``stable`` never changes again; ``unstable`` may. ``start`` of the phrase in seconds."""

    stable: str
    unstable: str
    start: float
    channel: int = 0

    @property
    def text(self) -> str:
        """Stable and unstable part together."""
        return self.stable + self.unstable


@dataclass(frozen=True, slots=True)
class Final:
    """A closed phrase."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class Refined:
    """A better text for a phrase that was final before."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class SpeechEnd:
    """Speech ended at ``time`` seconds."""

    time: float
    channel: int = 0


Event: TypeAlias = SpeechStart | Partial | Final | Refined | SpeechEnd
Frames: TypeAlias = LogProbs | Encoded
State: TypeAlias = Any
"""One stream's model state: a value, opaque to everyone but the model that made it."""

Nested: TypeAlias = Sequence[Any]
