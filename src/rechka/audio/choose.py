"""Which decoder reads which bytes: the content decides, soundfile comes first, PyAV where it is needed."""

from __future__ import annotations

from collections.abc import Callable

from rechka.audio import container, decode, wav
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
    finally:
        feed.close()
    found = sniffed(head, given.name)
    found = container.Found(found.kind, found.start + tags)
    form = wav.parse_wav(head) if found.kind == "wav" else None
    if form is not None and form.data_bytes is None:  # soundfile takes a length of zero at its word
        return lambda: _wav(given, form)
    return lambda: _container(given, found)


def sniffed(head: bytes, name: str) -> container.Found:
    if not head:
        raise empty(name)
    found = container.sniff(head)
    if found is None:
        raise NotAudio(
            f"{name} is of no known audio format, it begins with {head[:12]!r}",
            remedy="give wav, mp3, flac, ogg, opus, m4a, webm or wma; for raw telephony bytes name their encoding",
        )
    return found


def empty(name: str) -> EmptyAudio:
    return EmptyAudio(f"{name} has no samples", remedy="give a recording that is longer than zero")


def _raw(given: Input, encoding: Encoding, rate: int) -> decode.Decoder:
    feed = given.open()
    return decode.raw_stream(_checked_read(feed, given.name), encoding, rate, feed.close)


def _wav(given: Input, form: wav.WavFormat) -> decode.Decoder:
    feed = given.open()
    return decode.wav_stream(_checked_read(feed, given.name), form, feed.close)


def _checked_read(feed: Feed, name: str) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        data = feed.read(size)
        feed.check(name)
        return data

    return read


def _container(given: Input, found: container.Found) -> decode.Decoder:
    """soundfile where it can, else PyAV; PyAV also for odd codecs in soundfile's containers, if it is installed."""
    from rechka.audio import decode_av

    feed = given.open(found.start)
    try:
        if found.kind in container.SOUNDFILE_KINDS:
            try:
                return decode.SoundfileDecoder(feed, found.kind, given.name)
            except BrokenAudio as error:
                if not decode_av.is_installed() or feed.error is not None:
                    raise
                feed.seek(0)
                try:
                    return decode_av.AvDecoder(feed, found.kind, given.name)
                except AudioError:
                    raise error from None  # soundfile knows its formats best
        return decode_av.AvDecoder(feed, found.kind, given.name)
    except BaseException:
        feed.close()
        raise


def checked_format(decoder: decode.Decoder, name: str) -> tuple[int, int, int | None]:
    try:
        rate = checked_rate(decoder.sample_rate)
    except BadSamples as error:
        raise BrokenAudio(
            f"{name} claims {decoder.sample_rate} samples per second", remedy="its header is damaged"
        ) from error
    return rate, decode.checked_channels(decoder.channels, name), decoder.frames
