"""Which decoder reads which bytes: the content decides, soundfile comes first, PyAV where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from rechka.audio import container, decode, decode_av, mpeg, wav
from rechka.audio.inputs import Feed, Input
from rechka.audio.pcm import Encoding
from rechka.audio.resample import checked_rate
from rechka.errors import AudioError, BadSamples, BrokenAudio, EmptyAudio, NotAudio


def decoder_of(given: Input, encoding: Encoding | None, raw_rate: int) -> Callable[[], decode.Decoder]:
    """Makes decoders of these bytes, one for each pass.

    Raises:
        EmptyAudio: no bytes.
        NotAudio: of no known format.
    """
    if encoding is not None:
        return lambda: _raw(given, encoding, raw_rate)
    feed = given.open()
    try:
        head = feed.read(container.HEAD)
        tags = 0
        while tag := container.tag_bytes(head):
            tags += tag
            feed.seek(tags)
            head = feed.read(container.HEAD)
        feed.check(given.name)
        found = sniffed(head, given.name)
        found = container.Found(found.kind, found.start + tags)
    finally:
        feed.close()
    form = wav.parse_wav(head) if found.kind == "wav" else None
    if form is not None and form.data_bytes is None:  # soundfile takes a length of zero at its word
        return lambda: _wav(given, form, found.start)
    parts = [_Part(given, found.kind, found.start)]
    if found.kind in container.SOUNDFILE_KINDS:
        parts = _parts(given, found, head)
    return parts[0].decoder if len(parts) == 1 else lambda: decode.Chain([part.decoder for part in parts])


@dataclass(frozen=True, slots=True)
class _Part:
    """Bytes that one decoder reads: all of a file, or one of the recordings in it."""

    given: Input
    kind: str
    start: int
    end: int | None = None
    prefix: bytes = b""
    cut: bool = False

    def decoder(self) -> decode.Decoder:
        """soundfile's where it can, else PyAV's; that also for odd codecs in some of soundfile's containers."""
        feed = self.given.open(self.start, end=self.end, prefix=self.prefix)
        try:
            if self.kind not in container.SOUNDFILE_KINDS:
                return decode_av.AvDecoder(feed, self.kind, self.given.name)
            try:
                return decode.SoundfileDecoder(feed, self.kind, self.given.name, cut=self.cut)
            except BrokenAudio as error:
                if feed.error is not None:
                    raise
                other = self._other_codec(feed)
                if other is None:
                    raise
                feed = other  # so that it is closed if something fails
                if not decode_av.is_installed():
                    remedy = f'{error.remedy}; some codecs need: pip install "rechka[av]"'
                    raise BrokenAudio(error.message, remedy=remedy) from error
                try:
                    return decode_av.AvDecoder(other, self.kind, self.given.name)
                except AudioError:
                    raise error from None  # soundfile knows its formats best
        except BaseException:
            feed.close()
            raise

    def _other_codec(self, feed: Feed) -> Feed | None:
        """The bytes as PyAV may see them, in containers that may hold codecs unknown to soundfile: GSM or Speex."""
        feed.seek(0)
        if self.kind == "wav":
            header = wav.plain_header(feed.read(container.HEAD))
            if header is None:
                return None
            plain, start = header
            feed.close()
            return self.given.open(self.start + start, prefix=plain)
        if self.kind in ("ogg", "caf"):
            return feed
        return None


def _parts(given: Input, found: container.Found, head: bytes) -> list[_Part]:
    """The recordings in a file, usually one, with what soundfile would not notice by itself."""
    feed = given.open(found.start)
    try:
        if found.kind == "mp3":
            count = mpeg.count(feed)
            if count is None or count.right:
                return [_Part(given, "mp3", found.start)]
            start = found.start + count.header_bytes
            return [_Part(given, "mp3", start, prefix=count.header, cut=count.cut)]
        if found.kind == "ogg":
            links, whole = container.ogg_links(feed)
            starts = [found.start + link for link in links] or [found.start]
            parts = [_Part(given, "ogg", *ends) for ends in pairwise(starts)]
            return [*parts, _Part(given, "ogg", starts[-1], cut=not whole)]
        declared = container.declared_bytes(head)
        cut = declared is not None and feed.seek(0, 2) < declared - 1  # the padding byte is often forgotten
        return [_Part(given, found.kind, found.start, cut=cut)]
    finally:
        feed.close()
        feed.check(given.name)


def sniffed(head: bytes, name: str) -> container.Found:
    """What the first bytes of a recording are.

    Raises:
        EmptyAudio: there are none.
        NotAudio: no known format.
    """
    if not head:
        raise empty(name)
    found = container.sniff(head)
    if found is None:
        raise NotAudio(
            f"{name} is of no known audio format, it begins with {_shown(head)}",
            remedy="give wav, mp3, flac, ogg, opus, m4a, webm or wma; for raw telephone audio tell its encoding",
        )
    return found


def _shown(head: bytes) -> str:
    """The first bytes, as text where they are text."""
    text = head[:48].decode("utf-8", "ignore")  # the last letter may be cut
    readable = all(letter.isprintable() or letter in "\t\r\n" for letter in text)
    if readable and len(text.encode()) >= min(len(head), 48) - 3:
        return f"the text {text[:12]!r}"
    return repr(head[:12])


def empty(name: str) -> EmptyAudio:
    """The error for a recording without a sample."""
    return EmptyAudio(f"{name} has no samples", remedy="give a recording that is longer than zero")


def _raw(given: Input, encoding: Encoding, rate: int) -> decode.Decoder:
    feed = given.open()
    return decode.raw_stream(_checked_read(feed, given.name), encoding, rate, feed.close)


def _wav(given: Input, form: wav.WavFormat, start: int) -> decode.Decoder:
    feed = given.open(start)
    return decode.wav_stream(_checked_read(feed, given.name), form, feed.close)


def _checked_read(feed: Feed, name: str) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        data = feed.read(size)
        feed.check(name)
        return data

    return read


def checked_format(decoder: decode.Decoder, name: str) -> tuple[int, int, int | None]:
    """Sample rate, channels and claimed length of a recording.

    Raises:
        BrokenAudio: the rate or the channels are impossible.
    """
    try:
        rate = checked_rate(decoder.sample_rate)
    except BadSamples as error:
        raise BrokenAudio(
            f"{name} claims {decoder.sample_rate} samples per second", remedy="its header is damaged"
        ) from error
    return rate, decode.checked_channels(decoder.channels, name), decoder.frames
