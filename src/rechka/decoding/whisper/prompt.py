"""What a window is told before it is decoded.

    [<|startofprev|> hotwords, text before] <|startoftranscript|> language task [<|notimestamps|>] [begin of the text]

Whisper has 448 positions: half of them for new tokens, the other half for this, so at most 223 of text before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rechka.decoding.whisper.kernel import Codec, Special
from rechka.errors import UsageError

MAX_PREVIOUS = 448 // 2 - 1
MAX_HOTWORDS = MAX_PREVIOUS // 2
"""Hotwords leave half of the room to the text before."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt in its parts.

    Attributes:
        before: hotwords and text before, at most ``MAX_PREVIOUS`` tokens.
        head: start of transcript, language and task; no language nor task for English-only models.
        stamps: whether the model writes time stamps.
        prefix: beginning of the text, which is taken as given.
    """

    before: tuple[int, ...]
    head: tuple[int, ...]
    stamps: bool
    prefix: tuple[int, ...] = ()

    def tokens(self, special: Special) -> tuple[int, ...]:
        """All of it."""
        before = (special.previous, *self.before) if self.before else ()
        if self.stamps:
            prefix = (special.stamp(0), *self.prefix) if self.prefix else ()
        else:
            prefix = (special.no_stamps, *self.prefix)
        return (*before, *self.head, *prefix)

    @property
    def shape(self) -> tuple[int, bool, int]:
        """Windows whose prompts agree in this may share a call: stamps or not, and the same place of the start."""
        return len(self.before), self.stamps, len(self.prefix)


def head(special: Special, *, language: str, task: str, multilingual: bool) -> tuple[int, ...]:
    """Start of transcript, language and task.

    Raises:
        UsageError: a language that the model does not know; an English-only model asked for anything else.
    """
    if not multilingual:
        if language not in ("", "en") or task != "transcribe":
            raise UsageError(
                f"this model writes English only, asked for language {language!r} and task {task!r}",
                remedy="take a multilingual model, one without .en in its name",
            )
        return (special.start,)
    code = language_code(language, special)
    return (special.start, special.languages[code], special.translate if task == "translate" else special.transcribe)


def language_code(language: str, special: Special) -> str:
    """The code of a language given by its code or its English name.

    Raises:
        UsageError: unknown to the model.
    """
    wanted = language.strip().lower()
    code = NAMES.get(wanted, wanted)
    if code not in special.languages:
        raise UsageError(
            f"the model does not know the language {language!r}",
            remedy=f"it knows {', '.join(sorted(special.languages))}",
        )
    return code


NAMES = {
    "russian": "ru", "русский": "ru", "english": "en", "ukrainian": "uk", "belarusian": "be", "kazakh": "kk",
    "tatar": "tt", "german": "de", "french": "fr", "spanish": "es", "italian": "it", "chinese": "zh",
    "japanese": "ja", "turkish": "tr",
}  # fmt: skip


def before(codec: Codec, *, hotwords: Sequence[str] = (), previous: Sequence[int] = ()) -> tuple[int, ...]:
    """Hotwords and the end of the text before, as many tokens as there is room for.

    Args:
        codec: of the model.
        hotwords: the most important first; those that do not fit are left out whole.
        previous: text tokens before the window, the newest last.
    """
    hot: list[int] = []
    for count in range(min(len(hotwords), MAX_HOTWORDS), 0, -1):  # each takes a token at least
        tokens = codec.encode(" " + ", ".join(hotwords[:count]))
        if len(tokens) <= MAX_HOTWORDS:
            hot = tokens
            break
    room = MAX_PREVIOUS - len(hot)
    text = [token for token in previous if codec.special.is_text(token)]
    return (*hot, *text[len(text) - min(room, len(text)) :])
