"""The rules of Whisper decoding, apart from the model: prompts, stamps, retries, guards, words, joins."""

from rechka.decoding.whisper.fallback import Attempt, Task, decode
from rechka.decoding.whisper.kernel import Alignment, Codec, Generated, Kernel, Search, Special
from rechka.decoding.whisper.options import WhisperOptions
from rechka.decoding.whisper.prompt import Prompt

__all__ = [
    "Alignment",
    "Attempt",
    "Codec",
    "Generated",
    "Kernel",
    "Prompt",
    "Search",
    "Special",
    "Task",
    "WhisperOptions",
    "decode",
]
