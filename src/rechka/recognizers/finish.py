"""What may be done to a finished transcript: one conversation out of two channels, punctuation, digits."""

from __future__ import annotations

from rechka.recognizers.dialogue import dialogue
from rechka.text.itn import transcript_to_digits
from rechka.text.punctuation import Punctuator, punctuated
from rechka.types import Transcript


def finish(
    transcript: Transcript, *, digits: bool = False, punctuate: bool = False, punctuator: Punctuator | None = None
) -> Transcript:
    """The transcript as a reader wants it.

    Echo between channels goes first, since it is found by equal words; then numbers become digits; punctuation last, so
    that a full stop does not part the words of a number.

    Args:
        transcript: as ``Asr.transcribe`` gave it.
        digits: number words become digits (``rechka.text.itn``).
        punctuate: full stops and capitals (``rechka.text.punctuation``).
        punctuator: instead of the one that goes by pauses.
    """
    if len({segment.channel for segment in transcript.segments}) > 1:
        transcript = dialogue(transcript)
    if digits:
        transcript = transcript_to_digits(transcript)
    return punctuated(transcript, punctuator) if punctuate else transcript
