"""Settings of Whisper decoding."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from rechka.decoding.whisper.kernel import Search
from rechka.errors import UsageError

MODES = ("packed", "sequential", "chunked")
TASKS = ("transcribe", "translate")
VADS = ("silero", "energy", "none")
_SEARCH = Search()


@dataclass(frozen=True, slots=True)
class WhisperOptions:
    """How Whisper decodes. Defaults are OpenAI's where the paper or its code has any.

    Attributes:
        language: code such as ``"ru"``; empty: it is detected.
        languages: codes among which it is detected; none: all.
        language_windows: windows that vote on it.
        follow_language: detect it in every window, for recordings in which it changes.
        task: ``"transcribe"``, or ``"translate"`` into English.
        mode: ``"packed"``: phrases that the VAD finds are packed into windows, decoded in batches; ``"sequential"``:
            windows one after another, each knowing the text before it; ``"chunked"``: overlapping windows in batches.
        batch_size: windows of one call of the model.
        chunk_s, stride_s: length of a window of ``"chunked"``, and how much of it on either side only gives context.
        beam_size, best_of, patience, length_penalty, repetition_penalty, no_repeat_ngram, max_new: see ``Search``.
        suppress: ids that may not occur; -1 stands for the model's own list.
        temperatures: tried in turn until a text is good enough.
        max_compression: a text that compresses better than this repeats itself.
        min_logprob: a text whose tokens have a lower mean natural-log probability is doubtful.
        max_no_speech: with a doubtful text, a no-speech probability above this makes the window silence.
        max_words_s: more words a second than anyone speaks.
        guard_silence_s: drop improbable segments between pauses at least this long; 0 drops none. Needs word times.
        use_previous: give the text before a window as its prompt, where windows are decoded one after another.
        reset_temperature: a text that needed a higher temperature is not given as a prompt.
        prompt: text that the model takes for what was said before: names, style.
        hotwords: words to expect; part of the prompt of every window.
        stamps: let the model write time stamps; None: in ``"sequential"`` only.
        word_times: times of words, from the attention of the decoder.
        vad: ``"silero"``, ``"energy"``, or ``"none"`` (not with ``"packed"``).
        look_again: decode also what the VAD took for silence although it is loud; such text must pass stricter guards.
        partial_s: live, an open phrase is decoded again after so many seconds.
        commit: live, what of an open phrase is told as final: ``"agreement"`` of two decodes, or ``"alignment"``: words
            that end half a second before the end of what was heard.
    """

    language: str = ""
    languages: tuple[str, ...] = ()
    language_windows: int = 3
    follow_language: bool = False
    task: str = "transcribe"
    mode: str = "packed"
    batch_size: int = 8
    chunk_s: float = 30.0
    stride_s: float = 5.0
    beam_size: int = _SEARCH.beam_size
    best_of: int = _SEARCH.best_of
    patience: float = _SEARCH.patience
    length_penalty: float = _SEARCH.length_penalty
    repetition_penalty: float = _SEARCH.repetition_penalty
    no_repeat_ngram: int = _SEARCH.no_repeat_ngram
    max_new: int = _SEARCH.max_new
    suppress: tuple[int, ...] = _SEARCH.suppress
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    max_compression: float = 2.4
    min_logprob: float = -1.0
    max_no_speech: float = 0.6
    max_words_s: float = 7.0
    guard_silence_s: float = 0.0
    use_previous: bool = True
    reset_temperature: float = 0.5
    prompt: str = ""
    hotwords: tuple[str, ...] = ()
    stamps: bool | None = None
    word_times: bool = True
    vad: str = "silero"
    look_again: bool = True
    partial_s: float = 1.0
    commit: str = "agreement"

    def __post_init__(self) -> None:
        _choice("mode", self.mode, MODES)
        _choice("task", self.task, TASKS)
        _choice("vad", self.vad, VADS)
        _choice("commit", self.commit, ("agreement", "alignment"))
        for name in ("batch_size", "beam_size", "best_of", "max_new", "language_windows"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_new > 224:
            raise UsageError(f"max_new must be at most 224, half of Whisper's context, got {self.max_new}")
        if not self.temperatures or not all(0.0 <= one <= 2.0 for one in self.temperatures):
            raise UsageError(f"temperatures must lie between 0 and 2, at least one, got {self.temperatures}")
        if not 1.0 <= self.chunk_s <= 30.0 or not 0.0 <= self.stride_s < self.chunk_s / 2:
            raise UsageError(
                f"chunk_s must lie between 1 and 30, stride_s below half of it, got {self.chunk_s} and {self.stride_s}"
            )
        if self.mode == "packed" and self.vad == "none":
            raise UsageError("the mode packed needs a VAD", remedy="choose vad energy, or the mode sequential")
        if not self.partial_s > 0:
            raise UsageError(f"partial_s must be above 0, got {self.partial_s}")
        if self.guard_silence_s > 0 and not self.word_times:
            raise UsageError("guard_silence_s needs word_times")

    @property
    def with_stamps(self) -> bool:
        """Whether the model writes time stamps."""
        return self.mode == "sequential" if self.stamps is None else self.stamps

    @classmethod
    def parse(cls, values: dict[str, Any]) -> WhisperOptions:
        """From plain values such as a card's; whole numbers may stand for fractions, lists for tuples.

        Raises:
            UsageError: an unknown name, or a value of the wrong type or out of range.
        """
        defaults = cls()
        known = {field.name: getattr(defaults, field.name) for field in fields(cls)}
        taken: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise UsageError(f"Whisper has no option {name!r}", remedy=f"known options: {', '.join(known)}")
            taken[name] = _typed(name, value, known[name])
        return cls(**taken)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _typed(name: str, value: Any, default: Any) -> Any:
    kind = bool if default is None else type(default)
    if kind is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{name} must be a list, got {value!r}")
        inner = {"temperatures": float, "suppress": int}.get(name, str)
        return tuple(_scalar(name, one, inner) for one in value)
    return None if value is None and default is None else _scalar(name, value, kind)


def _scalar(name: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{name} must be of type {kind.__name__}, got {value!r}")
    return value
