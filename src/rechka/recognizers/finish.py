"""What may be done to a finished transcript: one conversation out of two channels, punctuation, digits."""

from __future__ import annotations

from rechka.recognizers.dialogue import dialogue
from rechka.text.itn import transcript_to_digits
from rechka.text.punctuation import LivePunctuator, Punctuator, is_bare, punctuated
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
        punctuate: marks and capitals for bare words; a model that writes its own is left alone.
        punctuator: instead of the embedded one (``rechka.models.punctuator``); ``rechka.text.punctuation`` has one that
            goes by pauses alone.
    """
    bare = is_bare(transcript.words)
    if len({segment.channel for segment in transcript.segments}) > 1:
        transcript = dialogue(transcript)
    if digits:
        transcript = transcript_to_digits(transcript)
    if not punctuate or (punctuator is None and not bare):
        return transcript
    return punctuated(transcript, punctuator or _embedded())


def marked(transcript: Transcript) -> Transcript:
    """Marks and capitals from the embedded punctuator and nothing else; a model that writes its own is left alone."""
    return punctuated(transcript, _embedded()) if is_bare(transcript.words) else transcript


def live_punctuator() -> LivePunctuator:
    """For the events of one stream or session: its finals get marks and capitals from the embedded punctuator."""
    return LivePunctuator(_embedded())


def _embedded() -> Punctuator:
    from rechka.models.punctuator import embedded  # loads a network: only for those who want it

    return embedded()
