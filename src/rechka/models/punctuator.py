"""Punctuation and capitals from a small network over words; it looks a few words ahead and no further.

The embedded network (``punctuation/model.onnx``) is our own, for Russian; ``recipes/punctuation`` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile
from rechka.protocols import Backend
from rechka.text.punctuation import CASES, MARKS, PAUSE_EDGES_S, pause_classes, written
from rechka.text.word_hashes import NUM_PIECES, NUM_WORDS, hashes
from rechka.types import F32, Word

EMBEDDED_FILE = Path(__file__).parent / "punctuation" / "model.onnx"
WINDOW = 1024
"""Words of one call of the network, beside those that it looks back and ahead at: bounds the memory."""
QUESTION_DOUBT = 1.0
"""Taken from the log-probability of a question mark: four of ten training sentences are questions, in telephone calls
far fewer are, and a wrong question mark disturbs more than a missing one."""
_SIZES = {"words": NUM_WORDS, "pieces": NUM_PIECES, "pauses": len(PAUSE_EDGES_S) + 2}


class WordPunctuator:
    """A ``Punctuator`` that goes by the words, and by the pauses between them where they have times.

    Args:
        backend: takes ``words`` (N,), ``pieces`` (N, 8) and ``pauses`` (N,), gives natural-log probabilities ``marks``
            (N, 6) and ``cases`` (N, 3).
        behind, ahead: words that the network sees before and after the one in question.

    Marks are chosen word by word, so a growing text keeps what it got except for its last ``look_ahead`` words: one
    more than ``ahead``, since the pause behind a word is known when the next one begins. Words that carry a mark
    already keep it.
    """

    def __init__(self, backend: Backend, *, behind: int, ahead: int) -> None:
        self._backend, self.behind, self.ahead = backend, behind, ahead
        self.look_ahead = ahead + 1

    @classmethod
    def load(cls, path: str | Path = EMBEDDED_FILE, *, threads: int = 1) -> WordPunctuator:
        """The punctuator of an ONNX file that ``recipes/punctuation`` wrote.

        Raises:
            ModelNotFound: no such file.
            BadModelFile: no punctuator, or made for other marks.
        """
        from rechka.backends.ort import OrtBackend

        backend = OrtBackend(path, threads=threads)
        about = backend.metadata
        expected = {"marks": list(MARKS), "cases": list(CASES), "pause_edges_s": list(PAUSE_EDGES_S)}
        try:
            found = {name: json.loads(about[name]) for name in expected}
            behind, ahead = int(about["behind"]), int(about["look_ahead"])
        except (KeyError, ValueError, RecursionError) as error:
            raise BadModelFile(
                f"{path} is no punctuator: its metadata lack {error}", remedy="make one with recipes/punctuation"
            ) from error
        if found != expected or not 0 <= ahead < 100 or not 0 <= behind < 1000 or set(backend.inputs) != set(_SIZES):
            raise BadModelFile(f"{path} is a punctuator for other marks or inputs than {expected}")
        return cls(backend, behind=behind, ahead=ahead)

    def __call__(self, words: Sequence[Word], /, *, final: bool = True) -> tuple[Word, ...]:
        """See ``Punctuator``; with ``final=False`` the last ``look_ahead`` words keep their bare form."""
        settled = len(words) if final else max(0, len(words) - self.look_ahead)
        if not settled:
            return tuple(words)
        marks, cases = self._probabilities(words)
        best = zip(decided(marks[:settled]), cases[:settled].argmax(axis=1), strict=True)
        return (*written(words[:settled], [(int(mark), int(case)) for mark, case in best]), *words[settled:])

    def _probabilities(self, words: Sequence[Word]) -> tuple[F32, F32]:
        """Natural-log probabilities (N, 6) of marks and (N, 3) of cases."""
        rows, pieces = hashes([word.text for word in words])
        feeds = {"words": rows, "pieces": pieces, "pauses": pause_classes(words)}
        found = [self._window(feeds, first, len(words)) for first in range(0, len(words), WINDOW)]
        return np.concatenate([part["marks"] for part in found]), np.concatenate([part["cases"] for part in found])

    def _window(self, feeds: dict[str, NDArray[np.int64]], first: int, count: int) -> dict[str, Any]:
        begin, end = max(0, first - self.behind), min(count, first + WINDOW + self.ahead)
        made = self._backend.run({name: values[begin:end] for name, values in feeds.items()})
        return {name: values[first - begin :][:WINDOW] for name, values in made.items()}


def decided(marks: F32) -> NDArray[np.int64]:
    """Numbers (N,) of marks from natural-log probabilities (N, 6).

    Whether a sentence ends is decided before how it ends, by what all its possible ends have together. A question mark
    needs more than the others (``QUESTION_DOUBT``).
    """
    scores = marks.copy()
    scores[:, MARKS.index("?")] -= QUESTION_DOUBT
    ends = MARKS.index(".")  # from here on
    groups = np.concatenate([scores[:, :ends], np.logaddexp.reduce(scores[:, ends:], axis=1)[:, None]], axis=1)
    group = groups.argmax(axis=1)
    found: NDArray[np.int64] = np.where(group < ends, group, ends + scores[:, ends:].argmax(axis=1))
    return found


@lru_cache(maxsize=1)
def embedded() -> WordPunctuator:
    """The embedded punctuator, loaded once."""
    return WordPunctuator.load()
