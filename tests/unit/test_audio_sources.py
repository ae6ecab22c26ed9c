"""Every kind of source and format gives the same speech, whatever it is called and however it is read."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from rechka.audio import container, mpeg, open_source
from rechka.errors import EmptyAudio, NotAudio, UsageError
from rechka.testing.audio import OneWay, ShortReads, tone, wav_bytes, wav_header
from rechka.testing.waiting import PATIENCE_S
from rechka.types import AudioChunk

DATA = Path(__file__).parent.parent / "data" / "audio"
SPEECH, RATE = soundfile.read(DATA / "speech.wav", dtype="float32")
LOSSLESS = ["speech.wav", "speech.flac", "speech.aiff", "speech.au"]
PLAIN = [*LOSSLESS, "alaw.wav", "mulaw.wav", "gsm.wav", "speech.mp3", "speech.ogg", "speech.opus"]
WITH_AV = [
    "speech.m4a",
    "faststart.m4a",
    "speech.aac",
    "speech.webm",
    "speech.mkv",
    "speech.wma",
    "video.mp4",
    "g722.wav",
]


def need_av(name: str) -> None:
    if name in WITH_AV:
        pytest.importorskip("av")


def samples(source: Any, **options: Any) -> np.ndarray:
    """All of a source: (n, channels). Checks on the way that it keeps the promises of AudioSource."""
    opened = open_source(source, **options)
    return collect(opened)


def collect(opened: Any) -> np.ndarray:
    parts, at = [], 0
    for chunk in opened:
        assert len(chunk) == opened.channels
        assert len({len(part.samples) for part in chunk}) == 1
        for part in chunk:
            assert isinstance(part, AudioChunk)
            assert part.sample_rate == opened.sample_rate
            assert part.start == at
            assert part.samples.dtype == np.float32
            assert part.samples.ndim == 1
            assert 0 < len(part.samples) <= 1.1 * max(0.5 * opened.sample_rate, 1024)
        at += len(chunk[0].samples)
        parts.append(np.stack([part.samples for part in chunk], axis=1))
    return np.concatenate(parts)


def correlation(one: np.ndarray, other: np.ndarray, most: int = 600) -> float:
    """Normalised correlation at the best delay of up to ``most`` samples; codecs have delays of their own."""
    size = min(len(one), len(other)) - most
    norm = [np.linalg.norm(one[lag : lag + size]) for lag in range(most)]
    return max(
        float(one[lag : lag + size] @ other[:size]) / max(1e-9, norm[lag] * np.linalg.norm(other[:size]))
        for lag in range(0, most)
    )


@pytest.mark.parametrize("name", PLAIN + WITH_AV)
def test_every_format_says_the_same(name: str) -> None:
    need_av(name)
    out = samples(DATA / name, sample_rate=8000)[:, 0]
    assert abs(len(out) - len(SPEECH)) <= 1000  # priming and padding of lossy codecs
    best = max(correlation(out, SPEECH), correlation(SPEECH, out))
    assert best > (0.999 if name in [*LOSSLESS, "alaw.wav", "mulaw.wav"] else 0.9), best


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_are_exact(name: str) -> None:
    assert np.array_equal(samples(DATA / name)[:, 0], SPEECH)


@pytest.mark.parametrize("name", PLAIN + WITH_AV)
def test_path_bytes_file_and_pipe_are_the_same(name: str, tmp_path: Path) -> None:
    need_av(name)
    data = (DATA / name).read_bytes()
    disguised = tmp_path / "recording.txt"  # the content tells, not the name
    disguised.write_bytes(data)
    expected = samples(DATA / name, sample_rate=8000)
    with disguised.open("rb") as file:
        others = [
            str(disguised),
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            file,
            ShortReads(data, 997),
        ]
        for other in others:
            assert np.array_equal(samples(other, sample_rate=8000), expected), type(other)
    piped = samples(OneWay(data, [1, 13, 3000]), sample_rate=8000)
    # A wav from a pipe is decoded by ourselves; everything else by the same library as a file.
    assert np.array_equal(piped, expected)


def test_blocks_of_a_compressed_file_join_without_seams() -> None:
    long = np.tile(SPEECH, 8)
    for form, subtype in (("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")):
        file = io.BytesIO()
        soundfile.write(file, long, 8000, format=form, subtype=subtype)
        expected, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
        assert np.abs(samples(file.getvalue())[:, 0] - expected).max() < 1e-6, form


def test_a_file_object_is_read_from_where_it_stands_and_stays_open() -> None:
    data = (DATA / "speech.flac").read_bytes()
    file = io.BytesIO(b"envelope" + data)
    file.seek(8)
    opened = open_source(file)
    for _ in range(2):
        assert np.array_equal(collect(opened)[:, 0], SPEECH)
    assert not file.closed


def test_sources_can_be_iterated_again() -> None:
    for source in (DATA / "speech.mp3", (DATA / "speech.wav").read_bytes(), (SPEECH, RATE)):
        opened = open_source(source, sample_rate=16000)
        assert np.array_equal(collect(opened), collect(opened))


def test_a_copied_pipe_can_be_iterated_again_and_a_live_one_cannot() -> None:
    copied = open_source(OneWay((DATA / "speech.flac").read_bytes()))
    assert np.array_equal(collect(copied), collect(copied))
    live = open_source(OneWay((DATA / "speech.wav").read_bytes()))
    collect(live)
    with pytest.raises(UsageError, match="read already"):
        collect(live)


def test_two_iterations_at_once_do_not_disturb_each_other() -> None:
    opened = open_source(DATA / "speech.flac")
    one, other = iter(opened), iter(opened)
    first = next(one)
    assert np.array_equal(next(other)[0].samples, first[0].samples)
    assert np.array_equal(next(one)[0].samples, next(other)[0].samples)
    one.close()  # type: ignore[attr-defined]
    other.close()  # type: ignore[attr-defined]


def test_channels_are_split_or_mixed() -> None:
    split = samples(DATA / "stereo.flac", channels="split")
    assert split.shape[1] == 2
    assert correlation(split[:, 0], SPEECH, 10) > 0.999
    hum = split[:, 1]
    spectrum = np.abs(np.fft.rfft(hum))
    assert abs(spectrum.argmax() * 8000 / len(hum) - 440) < 2
    mixed = samples(DATA / "stereo.flac", channels="mix")
    assert np.allclose(mixed[:, 0], split.mean(axis=1), atol=1e-7)


def test_split_channels_are_resampled_each() -> None:
    pair = np.stack([tone(300, 1.0, 44100), tone(700, 1.0, 44100)], axis=1)
    out = samples((pair, 44100), sample_rate=8000, channels="split")
    assert out.shape == (8000, 2)
    for channel, frequency in enumerate((300, 700)):
        assert np.abs(out[200:-200, channel] - tone(frequency, 1.0, 8000)[200:-200]).max() < 1e-3


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", ["(n,)", "(n, 1)", "(n, 2)"])
def test_arrays_of_every_kind(dtype: Any, shape: str) -> None:
    wave = tone(440, 1.3, 8000)
    scale = {np.int16: 32768, np.int32: 2**31}.get(dtype, 1)
    array = (wave * scale).astype(dtype)
    if shape != "(n,)":
        array = np.stack([array] * int(shape[4]), axis=1)
    out = samples((array, 8000))
    assert out.shape == (len(wave), 1)
    assert np.abs(out[:, 0] - wave).max() < 1e-3


def test_arrays_may_be_views_or_lists_and_are_not_kept_or_changed() -> None:
    wave = tone(440, 1.0, 8000)
    wide = np.stack([wave, -wave], axis=1)
    before = wide.copy()
    assert np.array_equal(samples((wide[:, 1], 8000))[:, 0], -wave)
    assert np.array_equal(samples((wide[::2], 4000), channels="split"), wide[::2])
    assert np.array_equal(samples(([0.0, 0.5, -0.5], np.int64(8000)))[:, 0], np.array([0, 0.5, -0.5], np.float32))
    assert np.array_equal(wide, before)


def test_extreme_integers_stay_within_one() -> None:
    out = samples((np.array([-32768, 32767], np.int16), 8000))
    assert out.ravel().tolist() == [-1.0, 32767 / 32768]


@pytest.mark.parametrize(("encoding", "name"), [("alaw", "alaw.wav"), ("mulaw", "mulaw.wav"), ("s16le", "speech.wav")])
def test_raw_telephony(encoding: Any, name: str) -> None:
    expected = samples(DATA / name)
    raw = (DATA / f"speech.{encoding}").read_bytes()
    for source in (DATA / f"speech.{encoding}", raw, OneWay(raw, [1, 1001])):
        assert np.array_equal(samples(source, encoding=encoding), expected)
    twice = open_source(raw, encoding=encoding, encoding_rate=16000)
    assert twice.sample_rate == 16000
    assert len(collect(twice)) == len(expected)


def test_another_source_is_converted_or_passed_on() -> None:
    inner = open_source(DATA / "stereo.flac", channels="split")
    assert open_source(inner, channels="split") is inner
    mixed = open_source(inner, sample_rate=16000)
    assert (mixed.channels, mixed.sample_rate) == (1, 16000)
    assert np.array_equal(collect(mixed), samples(DATA / "stereo.flac", sample_rate=16000))


def test_durations() -> None:
    assert open_source(DATA / "speech.flac", sample_rate=16000).duration == pytest.approx(1.2)
    assert open_source((SPEECH, RATE)).duration == pytest.approx(1.2)
    assert open_source(DATA / "speech.alaw", encoding="alaw").duration is None


def test_a_wav_whose_length_was_never_written() -> None:
    body = (DATA / "speech.s16le").read_bytes()
    for size in (0, 0x7FFFFFFF, 0xFFFFFFFF):
        data = wav_header(8000, data_bytes=size) + body
        for source in (data, OneWay(data)):
            opened = open_source(source)
            assert np.array_equal(collect(opened)[:, 0], SPEECH)
            assert not opened.truncated


def test_a_live_pipe_gives_audio_before_it_ends() -> None:
    read_end, write_end = os.pipe()
    go_on, come = threading.Event(), []

    def speak() -> None:
        with os.fdopen(write_end, "wb") as out:
            data = wav_bytes(tone(440, 2.0, 8000), 8000)
            out.write(data[:20000])
            out.flush()
            come.append(go_on.wait(PATIENCE_S))
            out.write(data[20000:])

    thread = threading.Thread(target=speak)
    thread.start()
    with os.fdopen(read_end, "rb") as file:
        chunks = iter(open_source(file))
        first = next(chunks)  # would wait for ever if the whole pipe were read first
        go_on.set()
        rest = list(chunks)
    thread.join()
    assert come == [True]
    assert len(first[0].samples) + sum(len(chunk[0].samples) for chunk in rest) == 16000


def test_a_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    data = (DATA / "speech.flac").read_bytes()
    thread = threading.Thread(target=lambda: path.write_bytes(data))
    thread.start()
    assert np.array_equal(samples(path)[:, 0], SPEECH)
    thread.join()


def test_mp3_that_begins_inside_a_frame_or_after_a_tag() -> None:
    data = (DATA / "speech.mp3").read_bytes()
    whole = samples(data)
    cut = samples(data[700:])
    assert 0.6 < len(cut) / len(whole) < 1
    picture = b"ID3\x04\0\0" + bytes([0, 7, 0x7F, 0x7F]) + b"\xff" * (7 * 16384 + 16383)
    for tags in (picture, picture * 2):
        assert np.array_equal(samples(tags + data), whole)
        assert np.array_equal(samples(OneWay(tags + data)), whole)
    assert np.array_equal(samples(picture + (DATA / "speech.flac").read_bytes())[:, 0], SPEECH)
    with pytest.raises(EmptyAudio):
        samples(picture)


def test_mp3_of_variable_bit_rate_without_its_header_is_read_to_its_end() -> None:
    rate = 16000
    noise = np.random.default_rng(4).standard_normal(20 * rate).astype(np.float32) * 0.2
    file = io.BytesIO()
    audio = np.concatenate([np.zeros(5 * rate, np.float32), noise, tone(440, 3.0, rate)])
    soundfile.write(file, audio, rate, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE")
    found = mpeg.count(file)
    assert found is not None
    assert found.right
    assert found.declared == found.frames
    bare = file.getvalue()[found.header_bytes :]
    for data, seconds in ((bare, 28), (file.getvalue() * 2, 56)):
        opened = open_source(data)
        out = collect(opened)
        assert abs(len(out) - seconds * rate) < 4 * 1152
        assert opened.duration == pytest.approx(len(out) / rate)
        last = np.abs(np.fft.rfft(out[-rate:, 0] * np.hanning(rate)))
        assert last.argmax() == 440


@pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS")])
def test_chained_ogg_is_read_to_its_end(form: str, subtype: str) -> None:
    links = []
    for frequency in (300, 500, 700):
        file = io.BytesIO()
        soundfile.write(file, tone(frequency, 2.0, 16000), 16000, format=form, subtype=subtype)
        links.append(file.getvalue())
    opened = open_source(b"".join(links))
    out = collect(opened)[:, 0]
    assert len(out) == 3 * 32000
    assert not opened.truncated
    for number, frequency in enumerate((300, 500, 700)):
        middle = out[number * 32000 + 8000 :][:16000]
        assert np.abs(np.fft.rfft(middle)).argmax() == frequency
    other = io.BytesIO()
    soundfile.write(other, tone(500, 1.0, 24000), 24000, format=form, subtype=subtype)
    mixed = open_source(links[0] + other.getvalue())
    assert len(collect(mixed)) == 32000
    assert mixed.truncated


def test_a_gap_in_mpeg_noise_is_no_mp3() -> None:
    noise = np.random.default_rng(3).integers(0, 256, 1 << 16).astype(np.uint8).tobytes()
    assert container.sniff(b"\0" + noise) is None


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, rechka.audio as a; a.open_source(([0.0, 0.1], 8000));"
        "print(*sorted({'av', 'soundfile', 'sounddevice', 'soxr', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize(
    ("head", "said"),
    [("просто текст, не звук\n".encode() * 9, "the text 'просто текст'"), (b"\x00\xc3\xa5\xd0 no", r"b'\x00\xc3")],
)
def test_what_is_no_audio_is_shown_as_it_can_be_read(head: bytes, said: str) -> None:
    with pytest.raises(NotAudio) as caught:
        open_source(head)
    assert said in caught.value.message
