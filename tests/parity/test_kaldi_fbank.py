"""Our filter bank against kaldi-native-fbank, which sherpa-onnx uses."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rechka.features import kaldi

knf = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")


def theirs(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.samp_freq = kaldi.SAMPLE_RATE
    options.mel_opts.num_bins = kaldi.NUM_BANDS
    options.mel_opts.low_freq = 20
    options.mel_opts.high_freq = -400
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(kaldi.SAMPLE_RATE, samples.tolist())
    bank.input_finished()
    return np.array([bank.get_frame(i) for i in range(bank.num_frames_ready)], np.float32).reshape(-1, 80)


@pytest.mark.parametrize("size", [80, 81, 279, 280, 281, 400, 1000, 16000, 40001])
def test_same_as_kaldi_native_fbank(size: int) -> None:
    samples = (0.1 * np.random.default_rng(size).standard_normal(size)).astype(np.float32)
    samples[size // 2 : size // 2 + 600] = 0.0  # digital silence: the floor
    samples += np.float32(0.02) * (np.arange(size) > size * 3 // 4)  # an offset: the mean removal
    ours, golden = kaldi.fbank(samples), theirs(samples)
    assert ours.shape == golden.shape
    np.testing.assert_allclose(ours, golden, atol=5e-4)


def test_silence_is_the_floor() -> None:
    samples = np.zeros(3200, np.float32)
    np.testing.assert_array_equal(kaldi.fbank(samples), theirs(samples))
    assert np.all(kaldi.fbank(samples) == np.log(np.float32(kaldi.FLOOR)))
