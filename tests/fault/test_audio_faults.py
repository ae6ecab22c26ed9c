"""Broken, cut, empty, huge, hostile and absent input: a typed error with a remedy, or the part that is there."""

from __future__ import annotations

import gc
import io
import os
import socket
import subprocess
import sys
import tempfile
import tracemalloc
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from rechka.audio import inputs, open_source
from rechka.audio.wav import plain_header
from rechka.errors import (
    AudioNotFound,
    AudioTooLong,
    BadSamples,
    BrokenAudio,
    EmptyAudio,
    MissingExtra,
    NotAudio,
    RechkaError,
    UsageError,
)
from rechka.testing.audio import FailsAt, LongWav, OneWay, tone, wav_bytes, wav_header

DATA = Path(__file__).parent.parent / "data" / "audio"


def read(source: Any, **options: Any) -> tuple[int, bool]:
    """Samples per channel of a source, and whether it broke off."""
    opened = open_source(source, **options)
    return sum(len(chunk[0].samples) for chunk in opened), opened.truncated


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AudioNotFound, match="there is no file"):
        open_source(tmp_path / "none.wav")
    with pytest.raises(AudioNotFound, match="is a folder"):
        open_source(tmp_path)
    with pytest.raises(AudioNotFound, match="is an address") as caught:
        open_source("https://example.org/call.wav")
    assert "download" in caught.value.remedy
    with pytest.raises(AudioNotFound, match="cannot be opened"):
        open_source("a\0b")
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "none.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(wav_bytes(tone(440, 0.1, 8000), 8000))
    path.chmod(0)
    with pytest.raises(AudioNotFound, match="may not be read"):
        open_source(path)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\0" * 100_000,
        b"<!doctype html><p>404",
        b"%PDF-1.7\n" + bytes(range(256)) * 20,
        b"PK\x03\x04" + b"\0" * 200,
        "Добрый день, это не звук.".encode(),
        np.random.default_rng(5).integers(0, 255, 100_000).astype(np.uint8).tobytes(),
        (DATA / "speech.alaw").read_bytes(),
    ],
    ids=["a letter", "zeros", "a web page", "pdf", "zip", "text", "noise", "raw bytes without their encoding"],
)
def test_what_is_no_audio(data: bytes) -> None:
    for source in (data, OneWay(data)):
        with pytest.raises(NotAudio, match="no known audio format") as caught:
            read(source)
        assert caught.value.remedy


@pytest.mark.parametrize(
    "data",
    [b"", wav_header(8000), wav_header(8000, data_bytes=2) + b"\0", b"ID3\x04\0\0\0\0\0\0"],
    ids=["nothing", "a wav header", "half a sample", "a tag"],
)
def test_what_is_empty(data: bytes) -> None:
    for source in (data, OneWay(data)):
        with pytest.raises((EmptyAudio, BrokenAudio)) as caught:
            read(source)
        assert caught.value.remedy


def test_raw_audio_may_be_empty_too() -> None:
    for source in (b"", OneWay(b"")):
        with pytest.raises(EmptyAudio):
            read(source, encoding="alaw")
    with pytest.raises(BrokenAudio, match="cut before its first sample"):
        read(b"\0", encoding="s16le")


def test_video_without_sound() -> None:
    pytest.importorskip("av")
    with pytest.raises(EmptyAudio, match="no audio track"):
        read(DATA / "silent.mp4")


@pytest.mark.parametrize(
    "name",
    ["speech.wav", "alaw.wav", "speech.flac", "speech.aiff", "speech.au", "speech.mp3", "speech.ogg", "speech.opus",
     "faststart.m4a", "speech.aac", "speech.webm", "gsm.wav"],
)  # fmt: skip
def test_a_cut_file_gives_the_part_that_is_there(name: str) -> None:
    if name.split(".")[-1] in ("m4a", "aac", "webm"):
        pytest.importorskip("av")
    data = (DATA / name).read_bytes()
    whole, truncated = read(data)
    assert not truncated
    for source in (data[: len(data) * 8 // 10], OneWay(data[: len(data) * 8 // 10])):
        part, truncated = read(source)
        # The header counts for much of such short files: at least some, at most what the bytes can hold.
        assert 0.1 * whole < part < 0.9 * whole
        assert truncated or name == "speech.webm"  # whose header tells no length to compare with in time


def test_what_came_before_the_cut_is_right() -> None:
    for name in ("speech.flac", "speech.wav", "speech.mp3", "speech.ogg"):
        data = (DATA / name).read_bytes()
        whole = np.concatenate([chunk[0].samples for chunk in open_source(data)])
        part = np.concatenate([chunk[0].samples for chunk in open_source(data[: len(data) * 8 // 10])])
        same = len(part) - 2 * 1152  # the last frame of an mp3 overlaps with what is lost
        shifts = range(0, 1200) if name == "speech.mp3" else (0,)  # its gapless trimming is lost with its header
        assert min(np.abs(part[s : s + same - 1200] - whole[: same - 1200]).max() for s in shifts) < 1e-3, name


def test_half_an_m4a_has_no_index() -> None:
    pytest.importorskip("av")
    data = (DATA / "speech.m4a").read_bytes()
    with pytest.raises(BrokenAudio, match="mp4") as caught:
        read(data[: len(data) // 2])
    assert "index" in caught.value.remedy


def test_eight_channels_do_not_crash_pyav() -> None:
    """PyAV's ``to_ndarray`` reads beyond the planes of a 7.1 frame, and the process dies."""
    pytest.importorskip("av")
    opened = open_source(DATA / "eight.m4a", channels="split")
    assert opened.channels == 8
    chunks = list(opened)
    assert sum(len(chunk[0].samples) for chunk in chunks) >= 0.4 * 16000
    loudest = [max(np.abs(chunk[channel].samples).max() for chunk in chunks) for channel in range(8)]
    assert np.argmax(loudest) == 2  # the centre
    assert loudest[2] > 0.1


class Frame:
    """As much of a PyAV frame as the decoder looks at."""

    samples = 4

    def __init__(self, form: str, channels: int, planes: list[bytes]) -> None:
        self.format = SimpleNamespace(name=form, is_planar=form.endswith("p"))
        self.layout = SimpleNamespace(nb_channels=channels)
        self.planes = planes


def test_sample_formats_of_pyav() -> None:
    from rechka.audio.decode_av import _to_array

    halves = {
        "u8": (np.uint8, 192),
        "s16": (np.int16, 1 << 14),
        "s32": (np.int32, 1 << 30),
        "s64": (np.int64, 1 << 62),
        "flt": (np.float32, 0.5),
        "dbl": (np.float64, 0.5),
    }
    for form, (dtype, half) in halves.items():
        plane = np.full(4, half, dtype).tobytes()
        stray = b"beyond the last plane"
        assert np.array_equal(_to_array(Frame(form + "p", 2, [plane, plane, stray])), np.full((4, 2), 0.5))
        assert np.array_equal(_to_array(Frame(form, 2, [plane + plane])), np.full((4, 2), 0.5))
    with pytest.raises(ValueError, match="31 channels"):
        _to_array(Frame("fltp", 31, []))
    with pytest.raises(ValueError, match="buffer"):
        _to_array(Frame("fltp", 1, [b"short"]))


def test_damage_in_the_middle_of_aac_costs_little() -> None:
    pytest.importorskip("av")
    data = bytearray((DATA / "speech.aac").read_bytes())
    whole, _ = read(bytes(data))
    data[1500:1540] = b"\x55" * 40
    part, _ = read(bytes(data))
    assert part > 0.7 * whole


@pytest.mark.parametrize(
    ("rate", "channels", "bits"), [(1, 1, 16), (0, 1, 16), (2**31 - 1, 1, 16), (8000, 65535, 8), (8000, 0, 16)]
)
def test_impossible_headers(rate: int, channels: int, bits: int) -> None:
    data = wav_header(rate, channels=channels, bits=bits, data_bytes=65535 * 4) + b"\1" * 65535 * 4
    for source in (data, OneWay(data)):
        with pytest.raises(BrokenAudio) as caught:
            read(source)
        assert caught.value.remedy


def test_a_header_that_claims_gigabytes_costs_nothing() -> None:
    flac = bytearray((DATA / "speech.flac").read_bytes())
    flac[21] |= 0x0F  # 36 bits of total samples in STREAMINFO
    flac[22:26] = b"\xff\xff\xff\xff"
    wav = wav_header(48000, channels=2, data_bytes=0x70000000) + b"\0" * 4000
    tracemalloc.start()
    try:
        for data in (bytes(flac), wav):
            count, truncated = read(data)
            assert count > 900
            assert truncated
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_chunk_that_claims_gigabytes_is_kept_from_ffmpeg() -> None:
    """FFmpeg's wav reader asks for as much memory as a text chunk claims to have."""
    data = (DATA / "g722.wav").read_bytes()
    at = data.index(b"LIST")
    hidden = data[:at] + data[at + 8 + int.from_bytes(data[at + 4 : at + 8], "little") :]
    header = plain_header(data)
    assert header is not None
    plain, start = header
    assert b"LIST" not in plain
    assert data[start - 8 : start - 4] == b"data"
    if find_spec("av"):
        assert read(hidden)[0] == read(data)[0] == 19200
    assert plain_header(data[: at + 4] + b"\xff\xff\xff\x70" + data[at + 8 :]) is None


def test_limits_of_length() -> None:
    audio = tone(440, 2.0, 8000)
    flac = io.BytesIO()
    soundfile.write(flac, audio, 8000, format="FLAC")
    for source in ((audio, 8000), wav_bytes(audio, 8000), flac.getvalue(), open_source((audio, 8000))):
        assert read(source, max_seconds=2.0) == (16000, False)
        with pytest.raises(AudioTooLong, match=r"limit of 1\.9 s"):
            open_source(source, max_seconds=1.9)
    endless = open_source(LongWav(10**6, rewindable=False), max_seconds=3.0)
    chunks = iter(endless)
    assert sum(len(next(chunks)[0].samples) for _ in range(3)) >= 8000  # what came before the limit was given
    with pytest.raises(AudioTooLong):
        list(chunks)
    with pytest.raises(UsageError):
        open_source((audio, 8000), max_seconds=0)


def test_compressed_silence_stops_at_the_limit() -> None:
    bomb = io.BytesIO()
    with soundfile.SoundFile(bomb, "w", 48000, 2, format="FLAC") as file:
        for _ in range(300):
            file.write(np.zeros((48000, 2), np.int16))
    assert len(bomb.getvalue()) < 1e6
    with pytest.raises(AudioTooLong):
        read(bomb.getvalue(), max_seconds=60)


def test_a_pipe_that_never_ends_is_not_copied_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        def __init__(self) -> None:
            self.head = b"fLaC"

        def read(self, size: int) -> bytes:
            head, self.head = self.head, b""
            return head + b"\0" * (size - len(head))

    monkeypatch.setattr(inputs.Pipe.spool, "__defaults__", (10_000_000,))
    with pytest.raises(AudioTooLong, match="10000000 bytes") as caught:
        open_source(Endless())
    assert "path" in caught.value.remedy


def test_the_copy_of_a_pipe_vanishes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = open_source(OneWay((DATA / "speech.flac").read_bytes()))
    assert sum(len(chunk[0].samples) for chunk in opened) == 9600
    del opened
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_copy_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(BrokenAudio, match="No space left") as caught:
        open_source(OneWay((DATA / "speech.flac").read_bytes()))
    assert "TMPDIR" in caught.value.remedy


@pytest.mark.parametrize("name", ["speech.wav", "speech.flac", "speech.mp3", "speech.ogg", "speech.m4a", "speech.webm"])
def test_a_file_object_that_fails(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    if name.endswith(("m4a", "webm")):
        pytest.importorskip("av")
    data = (DATA / name).read_bytes()
    for position in (0, 30, len(data) // 2, len(data) - 10):
        with pytest.raises(BrokenAudio, match="the disk is gone"):
            read(FailsAt(data, position))
    assert "Traceback" not in capfd.readouterr().err  # as C callbacks print, when Python raises in them


def test_an_interrupt_while_reading_is_an_interrupt() -> None:
    data = (DATA / "speech.flac").read_bytes()
    for name, position in (("speech.flac", 9000), ("speech.wav", 9000), ("speech.mp3", 2000)):
        data = (DATA / name).read_bytes()
        with pytest.raises(KeyboardInterrupt):
            read(FailsAt(data, position, KeyboardInterrupt()))


def test_a_pipe_that_fails() -> None:
    class Cut(OneWay):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise ConnectionResetError("connection reset by peer")
            return data

    for name in ("speech.wav", "speech.flac"):
        with pytest.raises(BrokenAudio, match="reset by peer"):
            read(Cut((DATA / name).read_bytes()[:9000]))


def test_a_file_in_text_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("RIFF")
    with path.open() as file, pytest.raises(UsageError, match="as text"):
        open_source(file)

    class Text:
        def read(self, size: int) -> str:
            return "RIFF"

    with pytest.raises(UsageError, match="as text"):
        open_source(Text())


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (np.zeros(100, np.uint8), 8000, "uint8"),
        (np.zeros(100, np.int64), 8000, "int64"),
        (np.zeros(100, complex), 8000, "complex"),
        (np.array(["a"]), 8000, "must be int16"),
        (np.zeros((2, 100), np.float32), 8000, "transpose"),
        (np.zeros((100, 65), np.float32), 8000, "at most 64"),
        (np.zeros((10, 2, 2), np.float32), 8000, "shape"),
        (np.float32(0.5), 8000, "shape"),
        (np.array([0.1, np.nan], np.float32), 8000, "nan"),
        (np.array([0.1, -np.inf], np.float32), 8000, "inf"),
        (np.array([0.1, 1e300]), 8000, "inf"),
        (np.array([0.1, 20000.0], np.float32), 8000, "20000"),
        (np.zeros(100, np.float32), 0, "sample rate"),
        (np.zeros(100, np.float32), 8000.5, "sample rate"),
        (np.zeros(100, np.float32), None, "sample rate"),
        (np.zeros(100, np.float32), "8000", "sample rate"),
    ],
)
def test_arrays_that_are_no_audio(array: Any, rate: Any, message: str) -> None:
    with pytest.raises(BadSamples, match=message):
        open_source((array, rate))


def test_an_empty_array() -> None:
    for array in (np.zeros(0, np.float32), np.zeros((0, 2), np.int16)):
        with pytest.raises(EmptyAudio):
            open_source((array, 8000))


@pytest.mark.parametrize("value", [np.nan, np.inf, 30000.0])
def test_a_float_wav_that_is_no_audio(value: float) -> None:
    samples = np.array([0.1] * 20_000 + [value], "<f4").tobytes()
    data = wav_header(8000, tag=3, bits=32, data_bytes=len(samples)) + samples
    for source in (data, OneWay(data)):
        with pytest.raises(BadSamples, match=r"\[-1, 1\]"):
            read(source)


@pytest.mark.parametrize("source", [None, 5, [0.0, 0.1], np.zeros(100, np.float32), {"path": "a"}, (1, 2, 3)])
def test_things_that_are_no_source(source: Any) -> None:
    with pytest.raises(UsageError, match="a source is a path"):
        open_source(source)


def test_arguments_that_do_not_go_together() -> None:
    audio = (tone(440, 0.1, 8000), 8000)
    for options in (
        {"channels": "left"},
        {"encoding": "alaw"},
        {"encoding_rate": 8000},
        {"max_seconds": -1.0},
        {"max_seconds": float("nan")},
    ):
        with pytest.raises(UsageError):
            open_source(audio, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="s16le, alaw, mulaw"):
        open_source(b"abc", encoding="opus")  # type: ignore[arg-type]
    with pytest.raises(BadSamples):
        open_source(audio, sample_rate=0)


def test_without_pyav_its_formats_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for name in ("speech.m4a", "speech.aac", "speech.webm", "speech.mkv", "speech.wma"):
        with pytest.raises(MissingExtra) as caught:
            open_source(DATA / name)
        assert caught.value.remedy == 'pip install "rechka[av]"'
    with pytest.raises(BrokenAudio) as damaged:
        read(DATA / "g722.wav")
    assert 'pip install "rechka[av]"' in damaged.value.remedy
    assert read(DATA / "speech.mp3") == (19200, False)


def hostile(secret: Path, port: int) -> dict[str, bytes]:
    """Texts that FFmpeg would follow to the network or to other files."""
    return {
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n".encode(),
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n".encode(),
        "ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        "path": str(secret).encode(),
        "playlist": f"{secret}\n".encode(),
    }


@pytest.mark.parametrize("kind", ["sdp", "hls", "ffconcat", "path", "playlist"])
@pytest.mark.parametrize("disguise", [b"", b"\xff\xf1\x60\x40", b"\x1a\x45\xdf\xa3", b"\0\0\0\x1cftypM4A "])
def test_hostile_texts_reach_neither_network_nor_files(kind: str, disguise: bytes, tmp_path: Path) -> None:
    pytest.importorskip("av")
    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav_bytes(tone(440, 1.0, 8000), 8000))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        data = disguise + hostile(secret, server.getsockname()[1])[kind]
        with pytest.raises((NotAudio, BrokenAudio)):
            read(data)
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_script_that_passes_for_a_format_is_refused_by_the_whitelist(tmp_path: Path) -> None:
    """Even if the sniffing let it pass: PyAV alone may open only the one demuxer that was asked for."""
    pytest.importorskip("av")
    from rechka.audio.decode_av import AvDecoder

    secret = tmp_path / "secret.wav"
    secret.write_bytes(wav_bytes(tone(440, 1.0, 8000), 8000))
    for data in hostile(secret, 9).values():
        for kind in ("mp4", "matroska", "aac", "asf"):
            feed = inputs.Feed(io.BytesIO(data), owned=True)
            with pytest.raises(BrokenAudio):
                AvDecoder(feed, kind, "it")


@pytest.mark.parametrize("rewindable", [True, False])
def test_memory_does_not_grow_with_the_length(rewindable: bool) -> None:
    def peak(seconds: int) -> int:
        tracemalloc.start()
        try:
            opened = open_source(LongWav(seconds, rewindable=rewindable), sample_rate=8000)
            assert sum(len(chunk[0].samples) for chunk in opened) == seconds * 8000
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(5)  # imports and tables
    short, long = peak(30), peak(300)
    assert long < short + 500_000
    assert long < 5_000_000


MEMORY = """
import io, resource, sys
from rechka.audio import open_source
data = open(sys.argv[1], "rb").read()
class Long(io.RawIOBase):
    # The same recording again and again, as if it were one file.
    def __init__(self, times): self.at, self.size = 0, len(data) * times
    def readable(self): return True
    def seekable(self): return True
    def tell(self): return self.at
    def seek(self, offset, whence=0):
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at
    def read(self, size=-1):
        left = self.size - self.at
        start = self.at % len(data)
        part = data[start : start + (left if size < 0 else min(size, left))]
        self.at += len(part)
        return part
def run(times):
    opened = open_source(Long(times), sample_rate=8000)
    seconds = sum(len(chunk[0].samples) for chunk in opened) / 8000
    assert seconds > 1.1 * times, seconds
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = run(40)
print((run(300) - before) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("name", ["speech.mp3", "speech.aac"])
def test_memory_of_the_decoding_libraries_does_not_grow_either(name: str) -> None:
    if name.endswith("aac"):
        pytest.importorskip("av")
    result = subprocess.run([sys.executable, "-c", MEMORY, DATA / name], capture_output=True, text=True, check=True)
    assert float(result.stdout) < 8  # MB for five more minutes


def test_files_are_closed_even_when_iteration_stops_early() -> None:
    def handles() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").exists():
        pytest.skip("no /proc")
    names = ["speech.wav", "speech.flac", "speech.mp3"]
    before = handles()
    for name in names:
        chunks = iter(open_source(DATA / name))
        next(chunks)
        chunks.close()  # type: ignore[attr-defined]
        open_source(DATA / name)  # never iterated
        with pytest.raises(AudioTooLong):
            open_source(DATA / name, max_seconds=0.1)
    with pytest.raises(RechkaError):
        open_source(DATA / "README.md")
    assert handles() == before
