"""Text that was made up: what speaks against a segment, and when it is dropped.

Whisper writes fluent text where nobody speaks: credits of subtitles, the same line again, half of its prompt. No sign
is proof by itself: people do say "to be continued", a detector misses quiet speech, a model is unsure of a rare name.
So signs are sorted by the kind of witness they come from, and a segment is dropped when two kinds agree, never by a
list of phrases alone.

    text     a known credit line, more words than anyone speaks, a loop
    vad      hardly any speech in its time, or all of it after the last speech
    level    nothing but noise that is far below the rest
    model    Whisper itself says "no speech"
    ctc      another model heard no letters there

Sources: openai/whisper (anomalous words, silence around them), experience of users with Russian recordings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rechka.decoding.whisper import quality
from rechka.types import Word

CREDITS = re.compile(
    r"субтитр\w* (?:сдела|созда|подготов|предостав|подогна|делал|добав)\w*|редактор субтитров|корректор [а-я]\.|"
    r"продолжение (?:следует|в следующей)|(?:спасибо|благодарю) за (?:просмотр|внимание)|подписывайтесь на|"
    r"ставьте лайк|dimatorzok|amara\.org|игорь негода|"
    r"thanks? (?:you )?for watching|subtitles? by|like and subscribe|to be continued",
    re.IGNORECASE,
)
"""What Whisper writes over silence and music, from reports of its users; one sign among others."""

SPEECH = 0.5
"""Speech probability from which a window of the detector counts as speech."""
MIN_SPEECH_SHARE = 0.1
QUIET_DB = 30.0
"""A segment so far below the loudest half second of its window is quiet."""
SILENT_DB = -60.0
"""Below full scale; nothing said is so quiet."""
MIN_FAST_WORDS = 3
MAX_CTC_LETTERS = 0.1
"""Share of a segment's letters that a witness heard, below which it says that there were none."""
KINDS = {
    "credits": "text", "fast": "text", "loop": "text", "no speech": "vad", "after speech": "vad", "quiet": "level",
    "model says no speech": "model", "no letters heard": "ctc",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of a segment's time without reading the text.

    Attributes:
        speech: share of its time that the detector calls speech; None without a detector.
        after: it begins after the last speech of its window.
        level_db: its level, decibels of full scale.
        loudest_db: of the loudest half second of its window.
        no_speech: probability by Whisper that the window has no speech.
        ctc: letters that another model heard in its time, over its own letters; None without one.
    """

    speech: float | None
    after: bool
    level_db: float
    loudest_db: float
    no_speech: float
    ctc: float | None = None


def signs(
    text: str, seconds: float, around: Surroundings, *, max_words_s: float, max_no_speech: float
) -> tuple[str, ...]:
    """What speaks against a segment: keys of ``KINDS``."""
    found = []
    num = len(quality.words(text))
    if CREDITS.search(text):
        found.append("credits")
    if num >= MIN_FAST_WORDS and num > max_words_s * max(seconds, 0.02):
        found.append("fast")
    if quality.loops(text):
        found.append("loop")
    if around.speech is not None and around.speech < MIN_SPEECH_SHARE:
        found.append("no speech")
    if around.speech is not None and around.after:
        found.append("after speech")
    if around.level_db < max(SILENT_DB, around.loudest_db - QUIET_DB):
        found.append("quiet")
    if around.no_speech > max_no_speech:
        found.append("model says no speech")
    if around.ctc is not None and around.ctc < MAX_CTC_LETTERS:
        found.append("no letters heard")
    return tuple(found)


def condemned(found: Sequence[str]) -> bool:
    """True if witnesses of two kinds speak against a segment."""
    return len({KINDS[sign] for sign in found}) >= 2


RARE_PROBABILITY = 0.15
SHORT_S, LONG_S = 0.133, 2.0
SHORT_WEIGHT = 15.0
ANOMALOUS = 3.0
ANOMALY_WORDS = 8
"""Words of a segment that are looked at; punctuation alone does not count."""
NEAR_EDGE_S = 2.0


def anomaly(word: Word) -> float:
    """How improbable a word is: unlikely, too short or too long."""
    score = 1.0 if word.confidence is not None and word.confidence < RARE_PROBABILITY else 0.0
    length = word.end - word.start
    if length < SHORT_S:
        score += (SHORT_S - length) * SHORT_WEIGHT
    if length > LONG_S:
        score += length - LONG_S
    return score


def anomalous(words: Sequence[Word]) -> bool:
    """True if the first words of a segment are improbable on the whole, or each of a few is."""
    heard = [word for word in words if any(char.isalnum() for char in word.text)][:ANOMALY_WORDS]
    score = sum(anomaly(word) for word in heard)
    return bool(heard) and (score >= ANOMALOUS or score + 0.01 >= len(heard))


def isolated(segments: Sequence[Sequence[Word]], *, size: float, silence: float, before: float) -> list[int]:
    """Indexes of anomalous segments between pauses, which are hallucinations with a high probability.

    Args:
        segments: words of each segment of a window, seconds from its beginning, in order, none empty.
        size: length of the window, seconds.
        silence: a pause at least this long counts.
        before: seconds of silence that came before the window; infinity at the beginning of a recording.
    """
    odd = [anomalous(words) for words in segments]
    found = []
    end = -before
    for i, words in enumerate(segments):
        if odd[i]:
            start, last = words[0].start, words[-1].end
            silent_before = start - end >= silence or start < min(silence, NEAR_EDGE_S)
            following = segments[i + 1][0].start if i + 1 < len(segments) else size
            odd_after = i + 1 < len(segments) and odd[i + 1]
            silent_after = following - last >= silence or odd_after or size - last < NEAR_EDGE_S
            if silent_before and silent_after:
                found.append(i)
                continue
        end = words[-1].end
    return found
