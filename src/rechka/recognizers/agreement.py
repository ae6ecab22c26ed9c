"""LocalAgreement-2: what two successive decodes of a growing phrase agree on is stable.

An offline model can show text while a phrase is open by decoding it again and again. The words on which two successive
decodes agree from the phrase's beginning on, the last word excepted since it may not be complete, are shown as stable
and never taken back: a later decode that reads otherwise is only heard after them.

Source: Liu, Spanakis, Niehues, "Low-latency sequence-to-sequence speech recognition and translation by partial
hypothesis selection", 2020; Macháček, Dabre, Bojar, "Turning Whisper into real-time transcription system", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rechka.types import Segment, Word


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the decodes of an open phrase have agreed on. A value.

    Attributes:
        stable: words that will not change.
        shown: words of the last decode, beginning with the stable ones.
    """

    stable: tuple[Word, ...] = ()
    shown: tuple[Word, ...] = ()

    def update(self, words: Sequence[Word], *, limit: float | None = None) -> Agreement:
        """After one more decode.

        Args:
            words: of the phrase as it is decoded now.
            limit: words that end after this time, seconds, do not become stable: the phrase may be cut there.
        """
        shown = self.applied(words)
        agreed = len(self.stable)
        for before, now in zip(self.shown[agreed:], shown[agreed:-1], strict=False):
            if before.text != now.text or (limit is not None and now.end > limit):
                break
            agreed += 1
        return Agreement(shown[:agreed], shown)

    def applied(self, words: Sequence[Word]) -> tuple[Word, ...]:
        """``words`` if they begin with the stable ones, else the stable ones and those of ``words`` that come later."""
        num = len(self.stable)
        if [word.text for word in words[:num]] == [word.text for word in self.stable]:
            return tuple(words)
        end = self.end
        # A word that the stable ones cover half belongs to them.
        later = [word for word in words if (word.start + word.end) / 2 > end]
        return (*self.stable, *(replace(w, start=max(w.start, end), end=max(w.end, end)) for w in later))

    @property
    def end(self) -> float:
        """Where the stable words end, seconds; 0 if there are none."""
        return self.stable[-1].end if self.stable else 0.0

    @property
    def texts(self) -> tuple[str, str]:
        """Stable and unstable text as in ``Partial``."""
        stable = " ".join(word.text for word in self.stable)
        text = " ".join(word.text for word in self.shown)
        return stable, text[len(stable) :]

    def bound(self, segment: Segment) -> Segment:
        """A closed phrase such that it begins with the stable words; ``segment`` itself if it does so anyway.

        Args:
            segment: the phrase as it was decoded in the end; its text is empty if nothing was recognised.
        """
        held = self.applied(segment.words)
        if held == segment.words:
            return segment
        text = " ".join(word.text for word in held)
        return replace(segment, text=text, end=max(segment.end, held[-1].end), words=held)
