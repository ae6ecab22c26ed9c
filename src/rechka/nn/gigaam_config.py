"""GigaAM's architecture as numbers, from a published configuration or from the weights alone; nothing needs torch.

A configuration names classes (Hydra's ``_target_``). Here such a name is looked up by its last part among those that
are known, and nothing is imported by it; keys that are not known are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.errors import BadModelFile
from rechka.features.gigaam import HOP, NUM_MELS, SAMPLE_RATE, log_mel

Array = NDArray[Any]

LETTERS = " абвгдежзийклмнопрстуфхцчшщъыьэюя"
"""Symbols of the character models of v1, v2 and v3 in order of their ids; the blank follows."""
EMOTIONS = ("angry", "sad", "neutral", "positive")
WINDOW = "preprocessor.featurizer.0.spectrogram.window"
BANK = "preprocessor.featurizer.0.mel_scale.fb"
"""Names of the front end's tables."""
TASKS = ("ctc", "rnnt", "ssl", "emo")

_HEADS = {"CTCHead": "ctc", "RNNTHead": "rnnt", "Linear": "emo"}
_PARTS = {"preprocessor": ("FeatureExtractor",), "encoder": ("ConformerEncoder",)}
_LIMITS = {
    "n_layers": (1, 64),
    "d_model": (4, 4096),
    "n_heads": (1, 64),
    "ff_factor": (1, 16),
    "subs_kernel": (3, 9),
    "conv_kernel": (1, 127),
    "position_base": (2, 1_000_000),
    "n_fft": (64, 4096),
    "num_classes": (2, 65536),
    "pred_hidden": (1, 4096),
    "pred_layers": (1, 8),
    "joint_hidden": (1, 4096),
    "max_symbols": (1, 100),
}


@dataclass(frozen=True, slots=True)
class GigaAmConfig:
    """The architecture; the defaults are the published v3 CTC model.

    Attributes:
        task: ``"ctc"``, ``"rnnt"``, ``"ssl"`` (the bare encoder) or ``"emo"``.
        n_layers, d_model, n_heads, ff_factor: Conformer blocks and their sizes.
        attention: ``"rotary"``, or ``"rel_pos"`` (v1, emo): Transformer-XL's relative positions.
        position_base: base of the rotary angles, which is the length of the reference's table.
        subsampling: ``"conv1d"``, or ``"conv2d"`` (v1, v2): how features become frames of 40 ms.
        subs_kernel, conv_kernel: taps of the subsampling and of the depthwise convolutions.
        conv_norm: ``"layer_norm"``, or ``"batch_norm"`` (v1, v2).
        n_fft, center: of the features, see ``rechka.features.gigaam``.
        num_classes: outputs of the head; with a blank, which is the last.
        pred_hidden, pred_layers, joint_hidden: of an RNN-T.
        vocabulary: symbols without the blank, or None: pieces of a SentencePiece model that lies elsewhere.
        labels: names of the classes (emo).
        max_symbols: tokens that an RNN-T may emit in one frame.
        name: as the publisher calls it, such as ``v3_ctc``; may be empty.
    """

    task: str = "ctc"
    n_layers: int = 16
    d_model: int = 768
    n_heads: int = 16
    ff_factor: int = 4
    attention: str = "rotary"
    position_base: int = 5000
    subsampling: str = "conv1d"
    subs_kernel: int = 5
    conv_kernel: int = 5
    conv_norm: str = "layer_norm"
    n_fft: int = 320
    center: bool = False
    num_classes: int = 34
    pred_hidden: int = 320
    pred_layers: int = 1
    joint_hidden: int = 320
    vocabulary: tuple[str, ...] | None = tuple(LETTERS)
    labels: tuple[str, ...] = EMOTIONS
    max_symbols: int = 10
    name: str = ""

    def __post_init__(self) -> None:
        for key, known in (
            ("task", TASKS),
            ("attention", ("rotary", "rel_pos")),
            ("subsampling", ("conv1d", "conv2d")),
            ("conv_norm", ("layer_norm", "batch_norm")),
        ):
            if getattr(self, key) not in known:
                raise BadModelFile(f"GigaAM's {key} must be one of {', '.join(known)}, got {_show(getattr(self, key))}")
        for key, (low, high) in _LIMITS.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise BadModelFile(f"GigaAM's {key} must be a whole number from {low} to {high}, got {_show(value)}")
        if self.d_model % self.n_heads or (self.attention == "rotary" and self.d_model // self.n_heads % 2):
            raise BadModelFile(f"a width of {self.d_model} cannot be shared by {self.n_heads} heads")
        if self.subs_kernel % 2 == 0 or self.conv_kernel % 2 == 0:
            raise BadModelFile(f"kernels must be odd, got {self.subs_kernel} and {self.conv_kernel}")
        blank = 1 if self.task in ("ctc", "rnnt") else 0
        symbols = self.labels if self.task == "emo" else self.vocabulary if blank else None
        if symbols is not None and len(symbols) + blank != self.num_classes:
            raise BadModelFile(
                f"GigaAM's head has {self.num_classes} classes, and there are {len(symbols)} symbols"
                + (" and a blank" if blank else ""),
                remedy="the vocabulary belongs to another model",
            )

    @classmethod
    def from_published(cls, values: Mapping[str, Any]) -> GigaAmConfig:
        """From a checkpoint's ``cfg``, a Hugging Face ``config.json``, which has it inside, or ``to_dict``.

        Raises:
            BadModelFile: a part that is not GigaAM's, or numbers that make no model.
        """
        if "encoder" not in values and "subs_kernel" in values:
            return cls._own(values)
        for key in ("cfg", "model", "cfg"):
            if "encoder" not in values and isinstance(values.get(key), Mapping):
                values = values[key]
        encoder, features = _section(values, "encoder"), _section(values, "preprocessor")
        if not encoder:
            raise BadModelFile("the configuration has no section 'encoder'", remedy="expected GigaAM's configuration")
        rate = features.get("sample_rate", SAMPLE_RATE)
        n_fft = features.get("n_fft", 400)
        fixed = {"sample_rate": (rate, SAMPLE_RATE), "hop_length": (features.get("hop_length", HOP), HOP)}
        fixed["features"] = (features.get("features", NUM_MELS), NUM_MELS)
        fixed["win_length"] = (features.get("win_length", n_fft), n_fft)
        fixed["subsampling_factor"] = (encoder.get("subsampling_factor", 4), 4)
        for key, (found, wanted) in fixed.items():
            if found != wanted:
                raise BadModelFile(f"GigaAM has {key} = {wanted}, the configuration says {_show(found)}")
        subsampling = encoder.get("subsampling", "conv2d")
        given = {
            "n_layers": encoder.get("n_layers", 16),
            "d_model": encoder.get("d_model", 768),
            "n_heads": encoder.get("n_heads", 16),
            "ff_factor": encoder.get("ff_expansion_factor", 4),
            "attention": encoder.get("self_attention_model", "rotary"),
            "position_base": encoder.get("pos_emb_max_len", 5000),
            "subsampling": subsampling,
            "subs_kernel": encoder.get("subs_kernel_size", 3),
            "conv_kernel": encoder.get("conv_kernel_size", 31),
            "conv_norm": encoder.get("conv_norm_type", "batch_norm"),
            "n_fft": n_fft,
            "center": bool(features.get("center", True)),
            "name": str(values.get("model_name") or "")[:64],
        }
        return cls(**given, **_head(values))

    @classmethod
    def _own(cls, values: Mapping[str, Any]) -> GigaAmConfig:
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise BadModelFile(f"unknown entries in a GigaAM configuration: {', '.join(map(_show, unknown))}")
        for key in ("vocabulary", "labels"):
            names = values.get(key)
            if names is not None and not (isinstance(names, Sequence) and all(isinstance(n, str) and n for n in names)):
                raise BadModelFile(f"the configuration's {key} is no list of names: {_show(names)}")
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)

    @classmethod
    def from_weights(cls, shapes: Mapping[str, tuple[int, ...]], *, name: str = "", n_heads: int = 16) -> GigaAmConfig:
        """From names and shapes of the weights, for a file that comes without a configuration.

        Heads of rotary attention leave no trace, hence ``n_heads``; the published models have 16. A vocabulary of
        other than the 34 classes of the character models must come from elsewhere.

        Raises:
            BadModelFile: weights that are not GigaAM's.
        """
        try:
            return cls(**{"n_heads": n_heads, **_from_shapes(shapes)}, name=name)
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error, BadModelFile):
                raise
            raise BadModelFile(f"these weights are not GigaAM's: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def unprefixed(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Front end, encoder and head under their published names, without Hugging Face's ``model.`` and what is beside."""
    inside = any(name.startswith("model.encoder.") for name in arrays)
    names = {name.removeprefix("model.") if inside else name: array for name, array in arrays.items()}
    parts = ("encoder.", "head.")
    return {name: array for name, array in names.items() if name.startswith(parts) or name in (WINDOW, BANK)}


def completed(arrays: Mapping[str, Array], config: GigaAmConfig) -> dict[str, Array]:
    """The weights that ``nn.gigaam.GigaAm`` has, from ``unprefixed`` ones.

    Leaves out the head of what is to be the bare encoder and stored positions, names the emotion head as ours is named,
    and adds what other tools leave out: counters of batches, and the tables of the front end.
    """
    found = {name: array for name, array in arrays.items() if config.task != "ssl" or not name.startswith("head.")}
    found.pop("encoder.pos_enc.pe", None)
    if config.task == "emo":
        heads = [name for name in found if name.startswith("head.")]
        found |= {f"head.{name.rpartition('.')[2]}": found.pop(name) for name in heads}
    if config.conv_norm == "batch_norm":
        for index in range(config.n_layers):
            found.setdefault(f"encoder.layers.{index}.conv.batch_norm.num_batches_tracked", np.zeros((), np.int64))
    tables = log_mel(config.n_fft, center=config.center, rounded=not config.center)
    found.setdefault(WINDOW, tables.window)
    found.setdefault(BANK, tables.fb)
    return found


def _head(values: Mapping[str, Any]) -> dict[str, Any]:
    """Task, head and vocabulary of a published configuration."""
    head = values.get("head")
    decoding = _section(values, "decoding")
    if not isinstance(head, Mapping):
        return {"task": "ssl", "vocabulary": None}
    target = str(head.get("_target_", "")).rpartition(".")[2]
    task = _HEADS.get(target) or ("emo" if "id2name" in values else None)
    if task is None:
        raise BadModelFile(f"the configuration has the head {_show(head.get('_target_'))}, which is not GigaAM's")
    if task == "emo":
        labels = _labels(values.get("id2name", EMOTIONS))
        return {"task": task, "labels": labels, "num_classes": len(labels), "vocabulary": None}
    symbols = decoding.get("vocabulary")
    if symbols is not None and not (isinstance(symbols, Sequence) and all(isinstance(s, str) and s for s in symbols)):
        raise BadModelFile("the configuration's vocabulary is no list of symbols")
    found: dict[str, Any] = {"task": task, "vocabulary": None if symbols is None else tuple(symbols)}
    if task == "ctc":
        return {**found, "num_classes": head.get("num_classes")}
    predictor, joint = _section(head, "decoder"), _section(head, "joint")
    return {
        **found,
        "num_classes": joint.get("num_classes"),
        "pred_hidden": predictor.get("pred_hidden", 320),
        "pred_layers": predictor.get("pred_rnn_layers", 1),
        "joint_hidden": joint.get("joint_hidden", 320),
        "max_symbols": decoding.get("max_symbols_per_step", 10),
    }


def _labels(names: Any) -> tuple[str, ...]:
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=lambda key: int(key) if str(key).isdigit() else -1)]
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise BadModelFile(f"the configuration's id2name is no list of names: {_show(names)}")
    return tuple(names)


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = values.get(key)
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise BadModelFile(f"the configuration's section {key!r} is no table")
    target = str(section.get("_target_", "")).rpartition(".")[2]
    if target and target not in _PARTS.get(key, (target,)):
        raise BadModelFile(f"the configuration has the {key} {target}, which is not GigaAM's")
    return section


def _from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    first = shapes["encoder.pre_encode.conv.0.weight"]
    layer = "encoder.layers.0"
    depthwise = shapes[f"{layer}.conv.depthwise_conv.weight"]
    numbers = [re.match(r"encoder\.layers\.(\d{1,3})\.", key) for key in shapes]
    biases = shapes.get(f"{layer}.self_attn.pos_bias_u")
    window = shapes.get(WINDOW)
    n_fft = window[0] if window else 320 if len(first) == 3 else 400
    found: dict[str, Any] = {
        "n_layers": 1 + max(int(match[1]) for match in numbers if match),
        "d_model": depthwise[0],
        "ff_factor": shapes[f"{layer}.feed_forward1.linear1.weight"][0] // depthwise[0],
        "attention": "rel_pos" if biases else "rotary",
        "subsampling": "conv1d" if len(first) == 3 else "conv2d",
        "subs_kernel": first[2],
        "conv_kernel": depthwise[2],
        "conv_norm": "batch_norm" if f"{layer}.conv.batch_norm.running_mean" in shapes else "layer_norm",
        "n_fft": n_fft,
        "center": n_fft == 400,
    }
    if biases:
        found["n_heads"] = biases[0]
    if "head.decoder_layers.0.weight" in shapes:
        found |= {"task": "ctc", "num_classes": shapes["head.decoder_layers.0.weight"][0]}
    elif "head.joint.enc.weight" in shapes:
        embedding = shapes["head.decoder.embed.weight"]
        layers = sum(1 for key in shapes if re.fullmatch(r"head\.decoder\.lstm\.weight_ih_l\d", key))
        found |= {"task": "rnnt", "num_classes": embedding[0], "pred_hidden": embedding[1], "pred_layers": layers}
        found["joint_hidden"] = shapes["head.joint.enc.weight"][0]
    elif head := next((shape for key, shape in shapes.items() if key.startswith("head.") and len(shape) == 2), None):
        labels = EMOTIONS if head[0] == len(EMOTIONS) else tuple(map(str, range(head[0])))
        return {**found, "task": "emo", "num_classes": head[0], "labels": labels, "vocabulary": None}
    else:
        return {**found, "task": "ssl", "vocabulary": None}
    return {**found, "vocabulary": tuple(LETTERS) if found["num_classes"] == len(LETTERS) + 1 else None}


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
