"""T-one's architecture as numbers; nothing here needs torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rechka.errors import BadModelFile
from rechka.features import tone as frontend

VOCABULARY = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя "
"""Symbols in order of their ids; the blank follows."""


@dataclass(frozen=True, slots=True)
class ToneConfig:
    """The architecture as numbers; the defaults are the published model. Frames are 30 ms unless said otherwise.

    Attributes:
        n_mels: features per 10 ms.
        n_layers, d_model, n_heads, ff_expansion_factor: Conformer blocks and their sizes.
        rope_dim: leading dimensions of every head that are rotated by position.
        conv_kernel_size: taps of the causal depthwise convolutions.
        conv_channels, conv_kernels, conv_strides: the two subsampling convolutions, (time, frequency).
        chunk_size: frames that see each other.
        mhsa_state_size: frames to the left that the attention of the last layers sees; a multiple of ``chunk_size``.
        mhsa_stateless_layers: how many leading layers attend inside their chunk only.
        recompute_scores: per layer, whether it computes attention scores or takes those of the layer before.
        reduction_position: the layer after which frames are merged in pairs.
        upsample_position: the layer after which they are doubled again.
        dropout, dropout_att: in training only.
        num_tokens: outputs; the blank is the last.
    """

    n_mels: int = frontend.NUM_MELS
    n_layers: int = 16
    d_model: int = 384
    n_heads: int = 8
    ff_expansion_factor: int = 4
    rope_dim: int = 32
    conv_kernel_size: int = 31
    conv_channels: tuple[int, int] = (32, 64)
    conv_kernels: tuple[tuple[int, int], tuple[int, int]] = ((11, 21), (11, 11))
    conv_strides: tuple[tuple[int, int], tuple[int, int]] = ((1, 1), (3, 1))
    chunk_size: int = 10
    mhsa_state_size: int = 30
    mhsa_stateless_layers: int = 14
    recompute_scores: tuple[bool, ...] = (True,) + (False,) * 6 + (True,) + (False,) * 6 + (True, True)
    reduction_position: int = 6
    reduction_kernel_size: int = 3
    reduction_factor: int = 2
    upsample_position: int = 14
    dropout: float = 0.1
    dropout_att: float = 0.1
    num_tokens: int = len(VOCABULARY) + 1

    def __post_init__(self) -> None:
        recompute = dict(enumerate(self.recompute_scores))
        expected = {
            "recompute_scores has one entry per layer": len(self.recompute_scores) == self.n_layers,
            "n_heads divides d_model": self.d_model % self.n_heads == 0,
            "chunk_size divides mhsa_state_size": self.mhsa_state_size % self.chunk_size == 0,
            "reduction_factor is 2 and divides chunk_size": self.reduction_factor == 2 and self.chunk_size % 2 == 0,
            "layers are in order": 0 <= self.reduction_position < self.upsample_position < self.n_layers,
            "scores are recomputed wherever the frame rate or the context changes": all(
                recompute.get(i)
                for i in {0, self.reduction_position + 1, self.upsample_position + 1, *self.stateful_layers}
            ),
            "the subsampling strides are (1, 1) and (3, 1)": self.conv_strides == ((1, 1), (3, 1)),
        }
        for condition, holds in expected.items():
            if not holds:
                raise BadModelFile(f"a T-one configuration must satisfy: {condition}; got {self}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ToneConfig:
        """From ``to_dict``, or from the published layout with its three ``*_params`` tables.

        Raises:
            BadModelFile: an unknown or contradictory entry.
        """
        if "encoder_params" in values:
            values = _from_published(values)
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise BadModelFile(f"unknown entries in a T-one configuration: {', '.join(unknown)}")
        return cls(**{key: _tuples(value) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or TOML."""
        return asdict(self)

    @property
    def stateful_layers(self) -> range:
        """Layers whose attention sees frames before its chunk."""
        return range(self.mhsa_stateless_layers, self.n_layers)

    @property
    def chunk_samples(self) -> int:
        """Samples per chunk: 2400 as published."""
        return self.chunk_size * 3 * frontend.HOP

    def slow(self, layer: int) -> bool:
        """Whether a layer runs at half the frame rate."""
        return self.reduction_position < layer <= self.upsample_position

    @property
    def mels_after(self) -> tuple[int, int]:
        """Frequency rows after each subsampling convolution."""
        first = self.n_mels - self.conv_kernels[0][1] + 1
        return first, first - self.conv_kernels[1][1] + 1

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Parts of a stream's state in order; all zeros at the start."""
        return {
            "mhsa_len": (1,),
            "preprocessing": (frontend.CONTEXT,),
            "mhsa": (len(self.stateful_layers), self.mhsa_state_size, self.d_model),
            "conv": (self.n_layers, self.d_model, self.conv_kernel_size - 1),
            "subsampling_1": (1, self.conv_kernels[0][0] - self.conv_strides[0][0], self.n_mels),
            "subsampling_2": (
                self.conv_channels[0],
                self.conv_kernels[1][0] - self.conv_strides[1][0],
                self.mels_after[0],
            ),
            "reduction": (self.d_model, self.reduction_kernel_size - self.reduction_factor),
        }

    @property
    def state_size(self) -> int:
        """Numbers in one stream's state: 219,729 as published."""
        return sum(math.prod(shape) for shape in self.state_shapes.values())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _from_published(values: Mapping[str, Any]) -> dict[str, Any]:
    features = dict(values.get("feature_extraction_params", {}))
    expected = {
        "sample_rate": frontend.SAMPLE_RATE,
        "window_size": frontend.WINDOW / frontend.SAMPLE_RATE,
        "window_stride": frontend.HOP / frontend.SAMPLE_RATE,
        "n_fft": frontend.WINDOW,
        "preemphasis_coefficient": frontend.PREEMPHASIS,
    }
    for key, value in expected.items():
        if features.get(key, value) != value:
            raise BadModelFile(f"T-one's front end has {key} = {value}, the configuration says {features[key]}")
    encoder: dict[str, Any] = dict(values["encoder_params"])
    renamed: dict[str, str] = {
        "subsampling_conv_channels": "conv_channels",
        "subsampling_kernel_size": "conv_kernels",
        "subsampling_strides": "conv_strides",
        "should_recompute_att_scores": "recompute_scores",
    }
    config: dict[str, Any] = {renamed.get(key, key): value for key, value in encoder.items()}
    if config.pop("feat_in", None) not in (None, features.get("n_mels", frontend.NUM_MELS)):
        raise BadModelFile(f"feat_in {encoder['feat_in']} differs from n_mels {features.get('n_mels')}")
    config["n_mels"] = features.get("n_mels", frontend.NUM_MELS)
    if "vocabulary" in values.get("decoder_params", {}):
        config["num_tokens"] = len(values["decoder_params"]["vocabulary"]) + 1
    return config
