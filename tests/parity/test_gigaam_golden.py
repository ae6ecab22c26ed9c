"""From audio to text, embeddings and emotion: every golden case of GigaAM, alone and in batches.

The graphs are written here node by node from the reference's weights (ONNX operators only, no torch), under the names
and with the masks of the reference's own export; so this also checks the description that they were written from.
"""

from __future__ import annotations

import json
import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from rechka.decoding import CtcGreedy, TransducerGreedy
from rechka.models import gigaam, gigaam_graphs
from rechka.models.token_table import read_tokens
from rechka.text.words import word_frames
from rechka.types import Encoded, LogProbs

onnx = pytest.importorskip("onnx")
safetensors = pytest.importorskip("safetensors.numpy")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "data" / "gigaam"
MODELS = ("v1_ctc", "v2_ctc", "v2_rnnt", "v3_ctc", "v3_e2e_ctc", "v3_e2e_rnnt", "v3_ssl", "emo")
FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
FRAMES = 256
"""Longest input of these graphs: rows of their position tables."""


class Writer:
    """Writes a graph operator by operator; arrays become constants."""

    def __init__(self, table: dict[str, np.ndarray]) -> None:
        self.table = table
        self.nodes, self.constants, self.known = [], [], {}

    def name(self, value: object) -> str:
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.known:
            self.known[key] = f"c{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), self.known[key]))
        return self.known[key]

    def __call__(self, op: str, *inputs: object, out: str = "", **attributes: object) -> str:
        out = out or f"n{len(self.nodes)}"
        names = ["" if value is None else self.name(value) for value in inputs]
        self.nodes.append(helper.make_node(op, names, [out], **attributes))
        return out

    def weight(self, key: str) -> np.ndarray:
        return self.table[key]

    def linear(self, x: str, key: str) -> str:
        y = self("MatMul", x, self.weight(f"{key}.weight").T)
        return self("Add", y, self.weight(f"{key}.bias")) if f"{key}.bias" in self.table else y

    def norm(self, x: str, key: str) -> str:
        scale, bias = self.weight(f"{key}.weight"), self.weight(f"{key}.bias")
        return self("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-5)

    def conv(self, x: str, key: str, stride: int, group: int = 1) -> str:
        kernel = self.weight(f"{key}.weight")
        pads = [(size - 1) // 2 for size in kernel.shape[2:]] * 2
        strides = [stride] * (kernel.ndim - 2)
        return self("Conv", x, kernel, self.weight(f"{key}.bias"), strides=strides, pads=pads, group=group)

    def size(self, x: str, axis: int) -> str:
        return self("Gather", self("Shape", x), np.array([axis]))

    def cut(self, x: object, axis: int, begin: object, end: object) -> str:
        return self("Slice", x, begin, end, np.array([axis]))

    def silu(self, x: str) -> str:
        return self("Mul", x, self("Sigmoid", x))

    def mask(self, lengths: str, size: str) -> str:
        """(B, size) one where a frame is valid, float."""
        frames = self("Range", np.int64(0), self("Squeeze", size), np.int64(1))
        valid = self("Less", self("Unsqueeze", frames, np.array([0])), self("Unsqueeze", lengths, np.array([1])))
        return self("Cast", valid, to=FLOAT)

    def halved(self, lengths: str) -> str:
        return self("Div", self("Add", lengths, np.int64(1)), np.int64(2))

    def save(self, path: Path, inputs: list, outputs: list) -> None:
        infos = [[helper.make_tensor_value_info(*item) for item in items] for items in (inputs, outputs)]
        graph = helper.make_graph(self.nodes, "g", *infos, self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_encoder(path: Path, table: dict, config: dict, task: str) -> None:
    w = Writer(table)
    names = ("features", "feature_lengths") if task in ("ctc", "emo") else ("audio_signal", "length")
    x, lengths = _subsampled(w, *names, conv1d=config["encoder"].get("subsampling") == "conv1d")
    time = w.size(x, 1)
    mask = w.mask(lengths, time)
    for layer in range(config["encoder"]["n_layers"]):
        x = _layer(w, x, mask, time, f"encoder.layers.{layer}", config["encoder"])
    outputs = []
    if task == "ctc":
        kernel = w.weight("head.decoder_layers.0.weight")[:, :, 0].T
        rows = w("Add", w("MatMul", x, kernel), w.weight("head.decoder_layers.0.bias"))
        w("LogSoftmax", rows, out="log_probs", axis=2)
        outputs.append(("log_probs", FLOAT, ["B", "t", kernel.shape[1]]))
    elif task == "emo":  # the mean over valid frames only
        total = w("ReduceSum", w("Mul", x, w("Unsqueeze", mask, np.array([2]))), np.array([1]), keepdims=0)
        mean = w("Div", total, w("Unsqueeze", w("Cast", lengths, to=FLOAT), np.array([1])))
        w("Softmax", w.linear(mean, "head"), out="probs", axis=1)
        outputs.append(("probs", FLOAT, ["B", 4]))
    else:
        w("Transpose", x, out="encoded", perm=[0, 2, 1])
        outputs.append(("encoded", FLOAT, ["B", config["encoder"]["d_model"], "t"]))
    if task != "emo":
        name = "encoded_lengths" if task == "ctc" else "encoded_len"
        w("Cast", lengths, out=name, to=INT32)
        outputs.append((name, INT32, ["B"]))
    w.save(path, [(names[0], FLOAT, ["B", 64, "T"]), (names[1], INT64, ["B"])], outputs)


def _subsampled(w: Writer, features: str, lengths: str, *, conv1d: bool) -> tuple[str, str]:
    """(B, T', d) and the lengths there; padding is zeroed before the first convolution and after each."""

    def zeroed(x: str, lengths: str) -> str:
        axes = np.array([1]) if conv1d else np.array([1, 3])
        return w("Mul", x, w("Unsqueeze", w.mask(lengths, w.size(x, 2)), axes))

    x = features if conv1d else w("Unsqueeze", w("Transpose", features, perm=[0, 2, 1]), np.array([1]))
    x = zeroed(x, lengths)
    for stage in (0, 2):
        lengths = w.halved(lengths)
        x = w("Relu", zeroed(w.conv(x, f"encoder.pre_encode.conv.{stage}", 2), lengths))
    if conv1d:
        return w("Transpose", x, perm=[0, 2, 1]), lengths
    x = w("Reshape", w("Transpose", x, perm=[0, 2, 1, 3]), np.array([0, 0, -1]))
    return w.linear(x, "encoder.pre_encode.out"), lengths


def _layer(w: Writer, x: str, mask: str, time: str, key: str, config: dict) -> str:
    def half(x: str, name: str) -> str:
        y = w.silu(w.linear(w.norm(x, f"{key}.norm_{name}"), f"{key}.{name}.linear1"))
        return w("Add", x, w("Mul", w.linear(y, f"{key}.{name}.linear2"), np.float32(0.5)))

    x = half(x, "feed_forward1")
    attended = _attention(w, w.norm(x, f"{key}.norm_self_att"), mask, time, f"{key}.self_attn", config)
    x = w("Add", x, attended)
    x = w("Add", x, _convolution(w, w.norm(x, f"{key}.norm_conv"), mask, f"{key}.conv"))
    return w.norm(half(x, "feed_forward2"), f"{key}.norm_out")


def _convolution(w: Writer, x: str, mask: str, key: str) -> str:
    x = w.conv(w("Transpose", x, perm=[0, 2, 1]), f"{key}.pointwise_conv1", 1)
    channels = len(w.weight(f"{key}.depthwise_conv.weight"))
    gate = w("Sigmoid", w.cut(x, 1, np.array([channels]), np.array([2 * channels])))
    x = w("Mul", w.cut(x, 1, np.array([0]), np.array([channels])), gate)
    x = w("Mul", x, w("Unsqueeze", mask, np.array([1])))
    x = w.conv(x, f"{key}.depthwise_conv", 1, group=channels)
    norm = f"{key}.batch_norm"
    if f"{norm}.running_mean" in w.table:
        arrays = [w.weight(f"{norm}.{name}") for name in ("weight", "bias", "running_mean", "running_var")]
        x = w("BatchNormalization", x, *arrays, epsilon=1e-5)
    else:
        x = w("Transpose", w.norm(w("Transpose", x, perm=[0, 2, 1]), norm), perm=[0, 2, 1])
    return w("Transpose", w.conv(w.silu(x), f"{key}.pointwise_conv2", 1), perm=[0, 2, 1])


def _attention(w: Writer, x: str, mask: str, time: str, key: str, config: dict) -> str:
    width, heads = config["d_model"], config["n_heads"]
    depth = width // heads

    def split(y: str) -> str:
        return w("Reshape", y, np.array([0, 0, heads, depth]))

    turned = x
    rotary = config["self_attention_model"] == "rotary"
    if rotary:  # before the projections
        angles = np.arange(FRAMES)[:, None] * 5000.0 ** (-np.arange(0, depth, 2) / depth)
        angles = np.concatenate([angles, angles], axis=1)[None, :, None].astype(np.float32)
        cos, sin = (w.cut(table, 1, np.array([0]), time) for table in (np.cos(angles), np.sin(angles)))
        y = split(x)
        first = w.cut(y, 3, np.array([0]), np.array([depth // 2]))
        second = w.cut(y, 3, np.array([depth // 2]), np.array([depth]))
        swapped = w("Concat", w("Neg", second), first, axis=3)
        turned = w("Reshape", w("Add", w("Mul", y, cos), w("Mul", swapped, sin)), np.array([0, 0, width]))
    query, k = (split(w.linear(turned, f"{key}.linear_{name}")) for name in "qk")
    v = w("Transpose", split(w.linear(x, f"{key}.linear_v")), perm=[0, 2, 1, 3])
    k = w("Transpose", k, perm=[0, 2, 3, 1])
    if rotary:
        scores = w("MatMul", w("Transpose", query, perm=[0, 2, 1, 3]), k)
    else:
        scores = _relative(w, query, k, time, key, heads, depth)
    scores = w("Mul", scores, np.float32(depth**-0.5))
    hidden = w("Mul", w("Sub", np.float32(1.0), w("Unsqueeze", mask, np.array([1, 2]))), np.float32(-10000.0))
    weights = w("Softmax", w("Add", scores, hidden), axis=3)
    y = w("Transpose", w("MatMul", weights, v), perm=[0, 2, 1, 3])
    return w.linear(w("Reshape", y, np.array([0, 0, width])), f"{key}.linear_out")


def _relative(w: Writer, query: str, k: str, time: str, key: str, heads: int, depth: int) -> str:
    """Scores of Transformer-XL: content with bias u, position with bias v, shifted."""
    positions = np.arange(FRAMES - 1, -FRAMES, -1)[:, None]
    angles = positions * 10000.0 ** (-np.arange(0, heads * depth, 2) / (heads * depth))
    table = np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(angles), -1).astype(np.float32)
    rows = w.cut(
        table, 0, w("Sub", np.array([FRAMES]), time), w("Sub", w("Add", time, np.array([FRAMES])), np.array([1]))
    )
    p = w("Reshape", w.linear(rows, f"{key}.linear_pos"), np.array([-1, heads, depth]))
    with_u, with_v = (
        w("Transpose", w("Add", query, w.weight(f"{key}.pos_bias_{name}")), perm=[0, 2, 1, 3]) for name in "uv"
    )
    content = w("MatMul", with_u, k)
    place = w("MatMul", with_v, w("Transpose", p, perm=[1, 2, 0]))
    place = w("Pad", place, np.array([0, 0, 0, 1, 0, 0, 0, 0]))
    place = w("Reshape", place, w("Concat", np.array([0, 0, -1]), time, axis=0))
    place = w.cut(place, 2, np.array([1]), np.array([1 << 30]))
    twice = w("Sub", w("Mul", time, np.array([2])), np.array([1]))
    place = w("Reshape", place, w("Concat", np.array([0, 0]), time, twice, axis=0))
    return w("Add", content, w.cut(place, 3, np.array([0]), time))


def write_predictor(path: Path, table: dict) -> None:
    w = Writer(table)

    def gates(name: str) -> np.ndarray:  # torch orders the gates i, f, g, o; ONNX i, o, f, g
        i, f, g, o = np.split(table[f"head.decoder.lstm.{name}_l0"], 4)
        return np.concatenate([i, o, f, g])[None]

    embedding = table["head.decoder.embed.weight"].copy()
    embedding[-1] = 0.0  # random in these weights; the reference starts from a zero vector and never reads this row
    hidden = embedding.shape[1]
    steps = w("Transpose", w("Gather", embedding, "x"), perm=[1, 0, 2])
    bias = np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1)
    arrays = [w.name(array) for array in (gates("weight_ih"), gates("weight_hh"), bias)]
    w.nodes.append(helper.make_node("LSTM", [steps, *arrays, "", "hi", "ci"], ["y", "ho", "co"], hidden_size=hidden))
    w("Transpose", w("Squeeze", "y", np.array([1])), out="dec", perm=[1, 0, 2])
    state = (FLOAT, [1, "B", hidden])
    outputs = [("dec", FLOAT, ["B", 1, hidden]), ("ho", *state), ("co", *state)]
    w.save(path, [("x", INT64, ["B", 1]), ("hi", *state), ("ci", *state)], outputs)


def write_joiner(path: Path, table: dict) -> None:
    w = Writer(table)
    parts = []
    for source, name, axis in (("enc", "enc", 2), ("dec", "pred", 1)):
        rows = w.linear(w("Transpose", source, perm=[0, 2, 1]), f"head.joint.{name}")
        parts.append(w("Unsqueeze", rows, np.array([axis])))
    logits = w.linear(w("Relu", w("Add", *parts)), "head.joint.joint_net.1")
    w("LogSoftmax", logits, out="joint", axis=3)
    widths = [table[f"head.joint.{name}.weight"].shape[1] for name in ("enc", "pred")]
    inputs = [(name, FLOAT, ["B", width, 1]) for name, width in zip(("enc", "dec"), widths, strict=True)]
    w.save(path, inputs, [("joint", FLOAT, ["B", 1, 1, len(table["head.joint.joint_net.1.bias"])])])


class Case:
    """One golden model, loaded from a folder as our converter lays it out."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        config = json.loads((GOLDEN / name / "config.json").read_text("utf-8"))
        table = safetensors.load_file(GOLDEN / name / "model.safetensors")
        task = name.split("_")[-1]
        role = "model" if task in ("ctc", "emo") else "encoder"
        write_encoder(folder / f"{role}.onnx", table, config, task)
        self.files = {role: folder / f"{role}.onnx", "frontend": folder / "frontend.npz"}
        tables = [table[f"preprocessor.featurizer.0.{key}"] for key in ("spectrogram.window", "mel_scale.fb")]
        np.savez(self.files["frontend"], window=tables[0], fb=tables[1])
        if task == "rnnt":
            self.files |= {"decoder": folder / "decoder.onnx", "joiner": folder / "joiner.onnx"}
            write_predictor(self.files["decoder"], table)
            write_joiner(self.files["joiner"], table)
        if "e2e" in name:
            self.files["tokens"] = GOLDEN / name / f"{name}_tokenizer.model"
        center = config["preprocessor"].get("center", True)
        self.params = {"task": task, "n_fft": config["preprocessor"].get("n_fft", 400), "center": center}
        with np.load(GOLDEN / name / "expected.npz") as arrays:
            self.arrays = dict(arrays)
        self.cases = json.loads((GOLDEN / name / "expected.json").read_text("utf-8"))["cases"]
        self.model = gigaam.load(self.files, self.params, threads=1)


TEXT = tuple(name for name in MODELS if name.endswith(("ctc", "rnnt")))
FRAMED = tuple(name for name in MODELS if name != "emo")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Golden models by name, each written once."""
    return lru_cache(None)(lambda name: Case(name, tmp_path_factory.mktemp(name)))


@pytest.fixture
def case(request, opened):
    return opened(request.param)


def samples(name: str) -> np.ndarray:
    with wave.open(str(GOLDEN / f"{name}.wav")) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return data.astype(np.float32) / np.float32(32768)


def check_frames(case: Case, frames, wav: str) -> None:
    key, tolerance = ("log_probs", 5e-3) if isinstance(frames, LogProbs) else ("encoded", 1e-3)
    wanted = case.arrays[f"{wav}.{key}"]
    wanted = wanted if key == "log_probs" else wanted.T
    assert frames.values.shape == wanted.shape
    assert np.abs(frames.values - wanted).max() < tolerance


@pytest.mark.parametrize("case", FRAMED, indirect=True)
def test_frames_alone_and_in_a_batch(case, monkeypatch):
    audio = [samples("a"), samples("b")]
    monkeypatch.setattr(gigaam_graphs, "_WASTE", 9.0)  # else items of so different lengths do not share a run
    together, _ = case.model.step(audio, [0, 0])
    # The reference's padded batch differs from its single results in v1 and v2; ours does not, by design.
    assert case.model.graph.mix == "any"
    assert len(case.model.graph._groups([128, 231])) == 1
    for wav, samples_, frames in zip("ab", audio, together, strict=True):
        check_frames(case, frames, wav)
        (alone,), _ = case.model.step([samples_], [0])
        assert np.abs(frames.values - alone.values).max() < 1e-4
    if case.name.startswith("v3_") and isinstance(together[0], Encoded):
        assert np.abs(together[0].values - case.arrays["batch.a.encoded_valid"].T).max() < 1e-3


@pytest.mark.parametrize("case", TEXT, indirect=True)
@pytest.mark.parametrize("batched", [False, True])
def test_text_frames_and_words(case, batched, monkeypatch):
    monkeypatch.setattr(gigaam_graphs, "_WASTE", 9.0)
    model = case.model
    tokens = model.spec.tokens
    audio = {wav: samples(wav) for wav in "ab"}
    if batched:
        frames = dict(zip("ab", model.step(list(audio.values()), [0, 0])[0], strict=True))
    else:
        frames = {wav: model.step([samples_], [0])[0][0] for wav, samples_ in audio.items()}
    for wav, wanted in case.cases.items():
        if model.transducer is None:
            ids, times = first_frames(frames[wav].values, tokens.blank)
            greedy = CtcGreedy(tokens)
            found = greedy.best(greedy.advance([greedy.begin()], [frames[wav]])[0])
            assert tokens.text(found.tokens).strip() == wanted["text"].strip()
        else:
            greedy = TransducerGreedy(model.transducer, tokens)
            found = greedy.best(greedy.advance([greedy.begin()], [frames[wav]])[0])
            ids, times = list(found.tokens), list(found.frames)
        assert ids == wanted["token_ids"]
        assert times == wanted["token_frames"]
        assert tokens.text(ids).removeprefix(" " if tokens.pieces else "") == wanted["text"]
        shift = len(audio[wav]) / 16000 / len(frames[wav])
        words = [(text, first * shift, last * shift) for text, first, last in word_frames(ids, times, tokens)]
        assert [text for text, _, _ in words] == [text for text, _, _ in wanted["words"]]
        for mine, theirs in zip(words, wanted["words"], strict=True):
            assert mine[1:] == pytest.approx(theirs[1:], abs=1e-6)


def first_frames(logprobs: np.ndarray, blank: int) -> tuple[list[int], list[int]]:
    """Greedy tokens at the first frame of each run, as the reference tells them; ours tells the loudest frame."""
    winners = logprobs.argmax(axis=1)
    before = np.concatenate([[blank], winners[:-1]])
    places = np.flatnonzero((winners != blank) & (winners != before))
    return winners[places].tolist(), places.tolist()


@pytest.mark.parametrize("case", ["emo"], indirect=True)
def test_emotion_alone_and_in_a_batch(case, monkeypatch):
    monkeypatch.setattr(gigaam_graphs, "_WASTE", 9.0)
    together = case.model.labels([samples("a"), samples("b")])
    for wav, found in zip("ab", together, strict=True):
        assert found["emotion"] == pytest.approx(case.cases[wav]["probs"], abs=1e-4)
        assert case.model.labels([samples(wav)])[0]["emotion"] == pytest.approx(found["emotion"], abs=1e-5)


@pytest.mark.parametrize("case", ["v3_ssl", "v2_rnnt"], indirect=True)
def test_embeddings(case):
    for wav in "ab":
        assert np.abs(case.model.embed(samples(wav)) - case.arrays[f"{wav}.encoded"].T).max() < 1e-3


@pytest.mark.parametrize("case", MODELS, indirect=True)
def test_the_window_is_told_from_the_weights(case):
    params = {"task": case.params["task"]}
    files = {role: path for role, path in case.files.items() if role != "frontend"}
    assert gigaam.load(files, params, threads=1).front.center == case.params["center"]


def test_token_tables_of_both_kinds_agree(tmp_path):
    table = read_tokens(GOLDEN / "v3_e2e_ctc" / "v3_e2e_ctc_tokenizer.model")
    lines = [symbol.replace(" ", "\u2581") or "<blk>" for symbol in table.symbols]
    (tmp_path / "tokens.txt").write_text("".join(f"{s} {i}\n" for i, s in enumerate(lines)), "utf-8")
    assert read_tokens(tmp_path / "tokens.txt") == table
