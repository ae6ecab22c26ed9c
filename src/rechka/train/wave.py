"""What rooms, lines, noise and telephones do to speech, in the domain of samples.

Everything works on (n,) float32 samples in [-1, 1] and draws from one seeded generator, so a recording is a function of
its seed. Codecs are G.711 in NumPy, and GSM 06.10 and Opus through libsndfile where it has them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rechka.audio.pcm import ALAW, MULAW, decode_alaw, decode_mulaw
from rechka.types import F32

if TYPE_CHECKING:
    Rng = np.random.Generator

PHONE_RATE = 8000
FRAME_S = 0.02
"""Speech in one packet of a telephone call over IP, and the grid of loudness."""


@dataclass(frozen=True, slots=True)
class WaveOptions:
    """How often (probabilities) and how strongly.

    Attributes:
        clean: share of recordings that are left as they are.
        speed: range of tempo, 1 +- speed; pitch goes with it.
        gain_db: range of level, +- so much. GigaAM's features are not normalised, so level matters there.
        noise: probability of noise, and
        noise_db: its range of signal-to-noise ratios.
        noise_files: recordings of noise, as patterns; without any the noise is synthetic.
        reverb: probability of a room.
        telephone: probability of a telephone line: band, codec, lost packets.
        loss: within a telephone line, probability of lost packets.
        clip: probability of clipping.
    """

    clean: float = 0.2
    speed: float = 0.1
    gain_db: float = 6.0
    noise: float = 0.4
    noise_db: tuple[float, float] = (5.0, 30.0)
    noise_files: tuple[str, ...] = ()
    reverb: float = 0.15
    telephone: float = 0.1
    loss: float = 0.2
    clip: float = 0.03


# Level --------------------------------------------------------------------------------------------------------------


def level(x: F32, rate: int) -> float:
    """Root mean square of the louder half of 20 ms frames: the level of speech without its pauses; 0 for silence."""
    size = max(1, round(FRAME_S * rate))
    power = np.square(x[: len(x) // size * size].reshape(-1, size), dtype=np.float64).mean(axis=1)
    if len(power) == 0:
        return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if len(x) else 0.0
    loud = np.sort(power)[len(power) // 2 :]
    return float(np.sqrt(loud.mean()))


def gain(x: F32, db: float) -> F32:
    """Louder by so many decibels."""
    return x * np.float32(10.0 ** (db / 20.0))


def limited(x: F32) -> F32:
    """Scaled down if any sample is beyond full scale."""
    peak = float(np.abs(x).max()) if len(x) else 0.0
    return x / np.float32(peak) if peak > 1.0 else x


def clipped(x: F32, db: float) -> F32:
    """Driven so many decibels over full scale and cut there, then back at its level."""
    peak = float(np.abs(x).max()) if len(x) else 0.0
    if peak == 0.0:
        return x
    drive = np.float32(10.0 ** (db / 20.0) / peak)
    return np.clip(x * drive, -1.0, 1.0) / drive


# Tempo, noise, rooms -------------------------------------------------------------------------------------------------


def speed(x: F32, factor: float) -> F32:
    """Played ``factor`` times as fast, pitch and all: (n / factor,) samples."""
    import soxr

    out: F32 = soxr.resample(x, round(1000 * factor), 1000).astype(np.float32)
    return out


def add_noise(x: F32, noise: F32, snr_db: float, rate: int) -> F32:
    """With noise, repeated or cut to length, so many decibels below the speech. Silence stays silence."""
    loud, other = level(x, rate), float(np.sqrt(np.mean(np.square(noise, dtype=np.float64)))) if len(noise) else 0.0
    if loud == 0.0 or other == 0.0:
        return x
    factor = np.float32(loud / other * 10.0 ** (-snr_db / 20.0))
    return x + np.resize(noise, len(x)) * factor


def coloured_noise(rng: Rng, n: int, rate: int) -> F32:
    """(n,) noise of a random colour, from white to brown, whose loudness turns about twice a second."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hertz = np.maximum(np.fft.rfftfreq(n, 1 / rate), 50.0)
    shaped = np.fft.irfft(spectrum * (hertz / 1000.0) ** (-rng.uniform(0.0, 1.0)), n)
    knots = 2 * n // rate + 2
    swell = np.interp(np.arange(n), np.linspace(0, n, knots), rng.normal(0.0, rng.uniform(0.0, 0.5), knots))
    return (shaped * np.exp(swell)).astype(np.float32)


def reverberate(x: F32, rng: Rng, rate: int) -> F32:
    """In a room: a direct sound at its place, then noise that decays by 60 dB in 0.1 to 0.6 s."""
    from scipy.signal import fftconvolve

    seconds, direct_db = rng.uniform(0.1, 0.6), rng.uniform(0.0, 12.0)
    count = max(2, round(seconds * rate))
    tail = rng.standard_normal(count) * 10.0 ** (-3.0 * np.arange(count) / count)
    tail[: max(1, round(0.002 * rate))] = 0.0  # the first wall is at least a third of a metre away
    energy = float(np.square(tail).sum())
    tail *= 10.0 ** (-direct_db / 20.0) / np.sqrt(energy) if energy else 0.0
    tail[0] = 1.0
    before = level(x, rate)
    wet = fftconvolve(x, tail)[: len(x)].astype(np.float32)
    after = level(wet, rate)
    return wet * np.float32(before / after) if after else wet


# Telephones ----------------------------------------------------------------------------------------------------------


def band_pass(x: F32, low: float, high: float, rate: int) -> F32:
    """A telephone's band: Butterworth of fourth order from ``low`` to ``high`` Hz."""
    from scipy.signal import butter, sosfilt

    return sosfilt(butter(4, (low, min(high, 0.49 * rate)), "bandpass", fs=rate, output="sos"), x).astype(np.float32)


def _encoder(table: NDArray[np.int16]) -> NDArray[np.uint8]:
    """For every 16-bit sample the code whose value is nearest."""
    order = np.argsort(table, kind="stable")
    values = table[order].astype(np.int64)
    middle = (values[1:] + values[:-1]) / 2
    return order[np.searchsorted(middle, np.arange(-32768, 32768))].astype(np.uint8)


_TO_ALAW, _TO_MULAW = _encoder(ALAW), _encoder(MULAW)


def encode_alaw(x: F32) -> bytes:
    """Samples in [-1, 1] as G.711 A-law, one byte each: the nearest of its values."""
    return _TO_ALAW[_integers(x) + 32768].tobytes()


def encode_mulaw(x: F32) -> bytes:
    """Samples in [-1, 1] as G.711 mu-law, one byte each: the nearest of its values."""
    return _TO_MULAW[_integers(x) + 32768].tobytes()


def _integers(x: F32) -> NDArray[np.int64]:
    return np.clip(np.rint(x * 32768.0), -32768, 32767).astype(np.int64)


def lose_packets(x: F32, rng: Rng, share: float, rate: int) -> F32:
    """With bursts of 20 ms packets lost: silence in their place, or the packet before, ever quieter.

    Bursts and gaps are drawn as a two-state chain (Gilbert 1960) whose bursts are two packets long on average.
    """
    size = round(FRAME_S * rate)
    count = len(x) // size
    out = x.copy()
    repeat, lost = rng.random() < 0.5, False
    enter, leave = share / max(1e-6, 1.0 - share) * 0.5, 0.5
    for packet, chance in enumerate(rng.random(count)):
        lost = chance >= leave if lost else chance < enter
        if lost:
            here = slice(packet * size, (packet + 1) * size)
            out[here] = 0.5 * out[here.start - size : here.start] if repeat and packet else 0.0
    return out


def _through_file(x: F32, form: str, subtype: str, **options: Any) -> F32:
    """Encoded and decoded by libsndfile at 8 kHz, as long as before."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(x, -1.0, 1.0), PHONE_RATE, format=form, subtype=subtype, **options)
    file.seek(0)
    decoded, _ = soundfile.read(file, dtype="float32")
    return np.resize(decoded, len(x)) if len(decoded) >= len(x) else np.pad(decoded, (0, len(x) - len(decoded)))


def gsm(x: F32) -> F32:
    """Through GSM 06.10 full rate (13 kbit/s) and back, at 8 kHz."""
    return _through_file(x, "WAV", "GSM610")


def opus(x: F32) -> F32:
    """Through Opus at its lowest quality and back, at 8 kHz."""
    return _through_file(x, "OGG", "OPUS", compression_level=1.0)


def mulaw(x: F32) -> F32:
    """Through G.711 mu-law and back."""
    return decode_mulaw(encode_mulaw(x))


def alaw(x: F32) -> F32:
    """Through G.711 A-law and back."""
    return decode_alaw(encode_alaw(x))


@lru_cache(maxsize=1)
def codecs() -> tuple[Callable[[F32], F32], ...]:
    """The codecs that work here; G.711 always does."""
    return (alaw, mulaw, *filter(_works, (gsm, opus)))


def _works(codec: Callable[[F32], F32]) -> bool:
    """False where libsndfile lacks the codec, or soundfile compression levels."""
    import soundfile

    try:
        return len(codec(np.zeros(800, np.float32))) == 800
    except (soundfile.SoundFileError, TypeError, ValueError):
        return False


def telephone(x: F32, rng: Rng, rate: int, *, loss: float = 0.0) -> F32:
    """Through a telephone: its band, one codec, with probability ``loss`` lost packets; at the rate it came with."""
    import soxr

    narrow = soxr.resample(x, rate, PHONE_RATE).astype(np.float32) if rate != PHONE_RATE else x
    narrow = limited(band_pass(narrow, rng.uniform(150, 350), rng.uniform(3100, 3700), PHONE_RATE))
    known = codecs()
    narrow = known[int(rng.integers(len(known)))](narrow)
    if rng.random() < loss:
        narrow = lose_packets(narrow, rng, rng.uniform(0.01, 0.08), PHONE_RATE)
    if rate == PHONE_RATE:
        return narrow
    wide: F32 = soxr.resample(narrow, PHONE_RATE, rate).astype(np.float32)
    return wide[: len(x)] if len(wide) >= len(x) else np.pad(wide, (0, len(x) - len(wide)))


# All of it -----------------------------------------------------------------------------------------------------------


def tempo(rng: Rng, options: WaveOptions) -> float:
    """The factor for ``speed``; 1 half of the time."""
    factor = 1.0 + options.speed * rng.uniform(-1.0, 1.0)
    return factor if options.speed and rng.random() < 0.5 else 1.0


def distort(x: F32, rng: Rng, rate: int, options: WaveOptions, noises: Sequence[F32] = ()) -> F32:
    """One recording made different; its length stays.

    Args:
        x: (n,) samples, with whatever silence shall be around the speech.
        rng: of everything.
        rate: sample rate.
        options: how.
        noises: recordings of noise at ``rate``.
    """
    if len(x) == 0 or rng.random() < options.clean:
        return x
    if rng.random() < options.reverb:
        x = reverberate(x, rng, rate)
    if rng.random() < options.noise:
        x = add_noise(x, _noise(rng, len(x), rate, noises), rng.uniform(*options.noise_db), rate)
    if rng.random() < options.clip:
        x = clipped(x, rng.uniform(3.0, 12.0))
    x = gain(x, options.gain_db * rng.uniform(-1.0, 1.0))
    if rng.random() < options.telephone:
        x = telephone(x, rng, rate, loss=options.loss)
    return limited(x)


def _noise(rng: Rng, n: int, rate: int, noises: Sequence[F32]) -> F32:
    if not noises or rng.random() < 0.2:
        return coloured_noise(rng, n, rate)
    noise = noises[int(rng.integers(len(noises)))]
    return np.resize(np.roll(noise, -int(rng.integers(len(noise)))), n)
