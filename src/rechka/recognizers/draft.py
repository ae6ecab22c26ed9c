"""A draft by a CTC model, verified by Whisper: speculative decoding without a second Whisper.

A CTC model writes a text at once. Whisper, forced to read it (``align``), says in one pass how likely each word is;
that costs the encoder and one step of the decoder instead of one step per token. A draft that Whisper believes is kept,
with its times. Where it disbelieves a word, what comes before stays as the beginning of the text, and Whisper decodes
from there on. A text that was decoded in this way is held to the same retries and guards as any other.

The draft should look like Whisper's own text: with a model that writes neither capitals nor punctuation, Whisper
disbelieves the first word for its missing capital and decodes nearly everything, which costs more than no draft.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rechka.decoding.whisper import Attempt, Prompt, Task, decode, guards, quality, words
from rechka.errors import UsageError
from rechka.recognizers.whisper import WhisperRecognizer
from rechka.recognizers.whisper_window import RATE
from rechka.types import F32, Segment, Word


class Drafter(Protocol):
    """What writes drafts: ``PhraseRecognizer``, or another recogniser through ``as_reader``."""

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        """Each phrase as a segment."""
        ...


@dataclass(frozen=True, slots=True)
class Verified:
    """What became of a draft.

    Attributes:
        segment: times count from the start of the phrase.
        kept: tokens of the draft that stayed.
        decoded: tokens that Whisper wrote itself.
    """

    segment: Segment
    kept: int
    decoded: int


class DraftReader:
    """Reads phrases of up to 30 seconds with a draft; fits wherever a ``PhraseReader`` does.

    Args:
        whisper: verifies, and decodes where it has to; its language must be set.
        drafter: writes drafts from audio at ``rate``.
        min_prob: a word whose tokens are less likely on the geometric mean is not believed.
        rate: of the audio that ``drafter`` takes.

    Raises:
        UsageError: no language, or a probability out of its range.
    """

    def __init__(
        self, whisper: WhisperRecognizer, drafter: Drafter, *, min_prob: float = 0.3, rate: int = RATE
    ) -> None:
        if not whisper.options.language:
            raise UsageError("verifying a draft needs a language", remedy='with_options(language="ru")')
        if not 0.0 < min_prob < 1.0:
            raise UsageError(f"min_prob must lie between 0 and 1, got {min_prob}")
        self.whisper, self.drafter, self.min_prob, self.rate = whisper, drafter, min_prob, rate
        self.spec = whisper.spec

    def read(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Segment]:
        """Each phrase (n,) at 16 kHz as a segment; see ``WhisperRecognizer.read``."""
        return [found.segment for found in self.verify(phrases, hotwords=hotwords)]

    def verify(self, phrases: Sequence[F32], *, hotwords: Mapping[str, float] | None = None) -> list[Verified]:
        """The same, with what became of each draft."""
        drafts = self.drafter.read([self._resampled(audio) for audio in phrases], hotwords=hotwords)
        found: list[Verified] = []
        size = self.whisper.options.batch_size
        for first in range(0, len(phrases), size):
            found += self._verify(phrases[first : first + size], drafts[first : first + size])
        return found

    def _resampled(self, audio: F32) -> F32:
        if self.rate == RATE:
            return audio
        from rechka.audio.resample import Resampler

        resampler = Resampler(RATE, self.rate)
        return np.concatenate([resampler.push(audio), resampler.flush()])

    def _verify(self, phrases: Sequence[F32], drafts: Sequence[Segment]) -> list[Verified]:
        kernel, codec, options = self.whisper.model.kernel, self.whisper.model.codec, self.whisper.options
        head = self.whisper.reader.head(options.language)
        texts = [codec.encode(f" {draft.text}") if draft.text.strip() else [] for draft in drafts]
        # What does not fit into a window, or into its tokens, is divided by the recogniser itself.
        short = [
            i for i, audio in enumerate(phrases)
            if RATE // 50 <= len(audio) <= 30 * RATE and len(texts[i]) <= options.max_new
        ]  # fmt: skip
        encoded = dict(zip(short, kernel.encode([phrases[i] for i in short]) if short else [], strict=True))
        asked = [i for i in short if texts[i]]
        pieces: dict[int, list[Word]] = {}
        believed: dict[int, int] = dict.fromkeys(short, 0)
        if asked:
            frames = [max(2, len(phrases[i]) // 160) for i in asked]
            scores = kernel.align([encoded[i] for i in asked], head, [texts[i] for i in asked], frames)
            for i, alignment in zip(asked, scores, strict=True):
                split = words.split(codec, texts[i], options.language)
                pieces[i] = words.timed(split, alignment, end=len(phrases[i]) / RATE)
                good = 0
                while good < len(split) and (pieces[i][good].confidence or 0.0) >= self.min_prob:
                    good += 1
                believed[i] = split[good - 1].last if good else 0
        open_ = [i for i in short if believed[i] < len(texts[i]) or not texts[i]]
        tasks = [
            Task(
                encoded[i], Prompt((), head, stamps=False, prefix=tuple(texts[i][: believed[i]])), "", options.language
            )
            for i in open_
        ]
        attempts = dict(zip(open_, decode(kernel, codec, tasks, options), strict=True))
        return [
            self._decoded(phrases[i], encoded[i], attempts[i], drafts[i], believed[i])
            if i in attempts and not attempts[i].truncated
            else self._kept(phrases[i], drafts[i], texts[i], pieces.get(i, []))
            if i in encoded and i not in attempts
            else Verified(self.whisper.read([phrases[i]])[0], 0, 0)
            for i in range(len(phrases))
        ]

    def _kept(self, audio: F32, draft: Segment, text: Sequence[int], timed: Sequence[Word]) -> Verified:
        duration = len(audio) / RATE
        segment = Segment(draft.text, 0.0, duration, tuple(timed), labels={"draft": "kept"})
        return Verified(segment, len(text), 0)

    def _decoded(self, audio: F32, encoded: Any, attempt: Attempt, draft: Segment, kept: int) -> Verified:
        """Whisper's text behind what was believed of the draft; the draft is a witness of it too."""
        kernel, codec, options = self.whisper.model.kernel, self.whisper.model.codec, self.whisper.options
        duration = len(audio) / RATE
        tokens = [token for token in attempt.tokens if codec.special.is_text(token)]
        text = codec.decode(tokens).strip()
        labels: dict[str, Any] = {**attempt.figures(), "draft": "used" if kept else "rejected"}
        if attempt.silent or not text or not any(char.isalnum() for char in text):
            return Verified(Segment("", 0.0, duration, labels=labels), 0, len(tokens))
        heard = sum(map(len, quality.words(draft.text)))
        around = guards.Surroundings(
            None, False, 0.0, 0.0, attempt.no_speech, heard / max(1, sum(map(len, quality.words(text))))
        )
        found = guards.signs(
            text, duration, around, max_words_s=options.max_words_s, max_no_speech=options.max_no_speech
        )
        if found:
            labels["signs"] = list(found)
        if guards.condemned(found):
            labels["dropped"] = [{"start": 0.0, "end": duration, "text": text, "signs": list(found)}]
            return Verified(Segment(draft.text, 0.0, duration, draft.words, labels=labels), 0, len(tokens))
        timed: list[Word] = []
        if options.word_times:
            head = self.whisper.reader.head(options.language)
            [alignment] = kernel.align([encoded], head, [tokens], [max(2, len(audio) // 160)])
            timed = words.timed(words.split(codec, tokens, options.language), alignment, end=duration)
        decoded = max(0, len(tokens) - kept)
        return Verified(Segment(text, 0.0, duration, tuple(timed), labels=labels), kept, decoded)


def scored(verified: Sequence[Verified]) -> Mapping[str, float]:
    """Shares over phrases and tokens: drafts kept whole, tokens kept, tokens decoded."""
    kept, made = sum(one.kept for one in verified), sum(one.decoded for one in verified)
    whole = sum(one.segment.labels.get("draft") == "kept" for one in verified)
    total = kept + made
    return {
        "phrases_kept": whole / len(verified) if verified else math.nan,
        "tokens_kept": kept / total if total else math.nan,
        "tokens_decoded": made / total if total else math.nan,
    }
