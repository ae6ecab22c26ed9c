"""Raw audio: G.711 tables, scaling, packets that end inside a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from rechka.audio import PcmDecoder, decode_alaw, decode_mulaw, decode_s16le
from rechka.audio.pcm import ALAW, MULAW
from rechka.audio.wav import samples as wav_samples
from rechka.errors import UsageError

DATA = Path(__file__).parent.parent / "data" / "audio"


def test_landmarks_of_g711() -> None:
    # ITU-T G.711, tables 1 and 2: the smallest and largest values of both signs, in 16 bits.
    assert [ALAW[code] for code in (0xD5, 0x55, 0xAA, 0x2A)] == [8, -8, 32256, -32256]
    assert [MULAW[code] for code in (0xFF, 0x7F, 0x80, 0x00)] == [0, 0, 32124, -32124]


@pytest.mark.parametrize(("table", "flip"), [(ALAW, 0x80), (MULAW, 0x80)])
def test_g711_is_odd_and_monotone(table: np.ndarray, flip: int) -> None:
    codes = np.arange(256)
    assert np.array_equal(table[codes ^ flip], -table[codes])
    assert len(np.unique(table)) >= 255


@pytest.mark.parametrize(("name", "decode"), [("alaw", decode_alaw), ("mulaw", decode_mulaw)])
def test_g711_decodes_as_libsndfile_does(name: str, decode: object) -> None:
    raw = (DATA / f"speech.{name}").read_bytes()
    expected, _ = soundfile.read(DATA / f"{name}.wav", dtype="float32")
    assert np.array_equal(decode(raw), expected)  # type: ignore[operator]


def test_16_bit_scaling() -> None:
    assert decode_s16le(b"\x00\x80\xff\x7f\x00\x00\x00").tolist() == [-1.0, 32767 / 32768, 0.0]


@pytest.mark.parametrize("encoding", ["s16le", "alaw", "mulaw"])
@pytest.mark.parametrize("size", [1, 3, 160, 10_000])
def test_packets_of_any_size(encoding: str, size: int) -> None:
    raw = (DATA / f"speech.{encoding}").read_bytes()[:5000]
    whole = PcmDecoder(encoding)
    expected = whole.push(raw)
    decoder = PcmDecoder(encoding)
    parts = [decoder.push(raw[at : at + size]) for at in range(0, len(raw), size)]
    assert np.array_equal(np.concatenate(parts), expected)
    assert decoder.pending == 0


def test_an_odd_byte_waits() -> None:
    decoder = PcmDecoder("s16le")
    assert len(decoder.push(b"\x00")) == 0
    assert decoder.pending == 1
    assert decoder.push(b"\x40").tolist() == [0.5]


def test_another_encoding() -> None:
    with pytest.raises(UsageError, match="s16le, alaw, mulaw"):
        PcmDecoder("opus")


@pytest.mark.parametrize(
    ("encoding", "data", "expected"),
    [
        ("u8", b"\x00\x80\xc0", [-1.0, 0.0, 0.5]),
        ("s24", b"\x00\x00\x80\x00\x00\x40", [-1.0, 0.5]),
        ("s32", b"\x00\x00\x00\x80\x00\x00\x00\x40", [-1.0, 0.5]),
        ("f32", b"\x00\x00\x00\xbf", [-0.5]),
        ("f64", b"\x00\x00\x00\x00\x00\x00\xe0\xbf", [-0.5]),
    ],
)
def test_wav_encodings(encoding: str, data: bytes, expected: list[float]) -> None:
    assert wav_samples(data, encoding).tolist() == expected
