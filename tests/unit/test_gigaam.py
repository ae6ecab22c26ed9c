"""The GigaAM family on small graphs of random weights, in every layout that is published."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

import rechka
from rechka.backends.onnx_file import summarise
from rechka.backends.ort import OrtBackend
from rechka.cli.main import main
from rechka.decoding import TransducerGreedy
from rechka.errors import AudioTooLong, BadCard, BadModelFile, BadSamples, IncompatibleParts, ModelNotFound, UsageError
from rechka.features.gigaam import log_mel, read_log_mel, to_bfloat16
from rechka.hub.card import Card, CardFile
from rechka.hub.layouts import recognise
from rechka.hub.registry import find
from rechka.models import gigaam
from rechka.models.token_table import read_tokens
from rechka.protocols import AcousticModel

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
DIM, PRED = 12, 5
PIECES = ["<unk>", "▁да", "▁", "нет", ",", "▁Река", "и", "<blk>"]


class Graph:
    """A graph under construction; weights are random and small."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def weight(self, *shape: int, value: object = None) -> str:
        name = f"w{len(self.weights)}"
        array = (self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array if value is None else np.asarray(value), name))
        return name

    def __call__(self, op: str, *inputs: str, out: str = "", **attributes: object) -> str:
        name = out or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def save(self, path: Path, inputs: list, outputs: list, metadata: dict | None = None) -> None:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(*item) for item in inputs],
            [helper.make_tensor_value_info(*item) for item in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, metadata or {})
        onnx.save(model, path)


def encoder(
    path: Path, *, head: str, classes: int = 34, v3: bool = True, lengths: bool = True, leak: bool = True, batch="B",
    names: tuple[str, str] | None = None, metadata: dict | None = None,
) -> None:  # fmt: skip
    """Two convolutions of stride two and a head. ``leak`` lets padding change the last frames, as old exports do."""
    g = Graph(7)
    names = names or (("features", "feature_lengths") if head in ("ctc", "emo") else ("audio_signal", "length"))
    if v3:
        one = g("Conv", names[0], g.weight(DIM, 64, 5), g.weight(DIM), strides=[2], pads=[2, 2])
    else:
        image = g("Unsqueeze", g("Transpose", names[0], perm=[0, 2, 1]), g.weight(value=np.array([1])))
        one = g("Conv", image, g.weight(DIM, 1, 3, 3), g.weight(DIM), strides=[2, 2], pads=[1, 1, 1, 1])
        one = g("ReduceMean", one, axes=[3], keepdims=0)
    if leak:
        hidden = g("Conv", g("Relu", one), g.weight(DIM, DIM, 5), g.weight(DIM), strides=[2], pads=[2, 2])
    else:
        hidden = g("Conv", g("Relu", one), g.weight(DIM, DIM, 1), g.weight(DIM), strides=[2])
    hidden = g("Tanh", hidden)
    outputs = []
    if head == "ctc":
        rows = g("Transpose", g("Conv", hidden, g.weight(classes, DIM, 1), g.weight(classes)), perm=[0, 2, 1])
        g("LogSoftmax", g("Mul", rows, g.weight(value=np.float32(6.0))), out="log_probs", axis=2)
        outputs.append(("log_probs", FLOAT, [batch, "t", classes]))
    elif head == "emo":
        g("Softmax", g("MatMul", g("ReduceMean", hidden, axes=[2], keepdims=0), g.weight(DIM, 4)), out="probs", axis=1)
        outputs.append(("probs", FLOAT, [batch, 4]))
    else:
        g("Identity", hidden, out="encoded")
        outputs.append(("encoded", FLOAT, [batch, DIM, "t"]))
    if lengths and head != "emo":
        one, four = g.weight(value=np.array(1)), g.weight(value=np.array(4))
        count = g("Add", g("Div", g("Sub", names[1], one), four), one)
        name = "encoded_lengths" if head == "ctc" else "encoded_len"
        g("Cast", count, out=name, to=INT32)
        outputs.append((name, INT32, [batch]))
    g.save(path, [(names[0], FLOAT, [batch, 64, "T"]), (names[1], INT64, [batch])], outputs, metadata)


def predictor(path: Path, *, kind: str, classes: int = 34) -> None:
    """The LSTM as ours and the reference (``new``), istupakov (``old``) or sherpa-onnx (``sherpa``) export it."""
    g = Graph(8)
    names, batch = (
        (("x", "hi", "ci", "dec", "ho", "co"), "B") if kind == "new" else (("x", "h.1", "c.1", "dec", "h", "c"), 1)
    )
    embedding = g.rng.normal(size=(classes, PRED)).astype(np.float32)
    embedding[-1] = 0.0
    rows = g("Transpose", g("Gather", g.weight(value=embedding), "x"), perm=[1, 0, 2])
    lstm = [g.weight(1, 4 * PRED, PRED), g.weight(1, 4 * PRED, PRED), g.weight(1, 8 * PRED)]
    g.nodes.append(helper.make_node("LSTM", [rows, *lstm, "", *names[1:3]], ["y", *names[4:]], hidden_size=PRED))
    flat = g("Squeeze", "y", g.weight(value=np.array([1])))
    g("Transpose", flat, out="dec", perm=[1, 2, 0] if kind == "sherpa" else [1, 0, 2])
    shape = [batch, PRED, 1] if kind == "sherpa" else [batch, 1, PRED]
    inputs = [("x", INT32 if kind == "sherpa" else INT64, [batch, 1])]
    inputs += [(name, FLOAT, [1, batch, PRED]) for name in names[1:3]]
    outputs = [("dec", FLOAT, shape)] + [(name, FLOAT, [1, batch, PRED]) for name in names[4:]]
    if kind == "sherpa":
        inputs.insert(1, ("unused_x_len.1", INT32, [1]))
        g("Identity", "unused_x_len.1", out="unused_x_len")
        outputs.append(("unused_x_len", INT32, [1]))
    g.save(path, inputs, outputs)


def joiner(path: Path, *, kind: str, classes: int = 34, normalised: bool = True) -> None:
    g = Graph(9)
    batch = "B" if kind == "new" else 1
    one = g("MatMul", g("Transpose", "enc", perm=[0, 2, 1]), g.weight(DIM, DIM))
    two = g("MatMul", g("Transpose", "dec", perm=[0, 2, 1]), g.weight(PRED, DIM))
    both = g("Relu", g("Add", g("Unsqueeze", one, g.weight(value=np.array([2]))),
                       g("Unsqueeze", two, g.weight(value=np.array([1])))))  # fmt: skip
    rows = g("MatMul", both, g.weight(DIM, classes))
    g("LogSoftmax" if normalised else "Identity", rows, out="joint", **({"axis": 3} if normalised else {}))
    g.save(path, [("enc", FLOAT, [batch, DIM, 1]), ("dec", FLOAT, [batch, PRED, 1])],
           [("joint", FLOAT, [batch, 1, 1, classes])])  # fmt: skip


def tokens(path: Path, *, pieces: bool = False, literal: bool = False) -> None:
    symbols = PIECES if pieces else [" " if literal else "▁", *"абвгдежзийклмнопрстуфхцчшщъыьэюя", "<blk>"]
    path.write_text("".join(f"{symbol} {index}\n" for index, symbol in enumerate(symbols)), "utf-8")


def layout(folder: Path, name: str) -> Path:
    """A folder as it is published."""
    folder.mkdir()
    giga = {"is_giga_am": "1", "model_type": "EncDecCTCModel"}
    if name == "onnx-asr v2 ctc":
        encoder(folder / "v2_ctc.onnx", head="ctc", v3=False, lengths=False, batch=1)
        tokens(folder / "v2_vocab.txt")
        (folder / "config.json").write_text(json.dumps({"max_tokens_per_step": 3}))
    elif name == "onnx-asr v3 e2e ctc int8":
        encoder(folder / "v3_e2e_ctc.int8.onnx", head="ctc", classes=len(PIECES), lengths=False)
        tokens(folder / "v3_e2e_ctc_vocab.txt", pieces=True)
    elif name in ("onnx-asr v3 e2e rnnt", "reference v3 rnnt"):
        base, kind, classes = ("v3_rnnt", "new", 34) if "reference" in name else ("v3_e2e_rnnt", "old", len(PIECES))
        encoder(folder / f"{base}_encoder.onnx", head="rnnt", leak=False)
        predictor(folder / f"{base}_decoder.onnx", kind=kind, classes=classes)
        joiner(folder / f"{base}_joint.onnx", kind=kind, classes=classes)
        if kind == "old":
            tokens(folder / "v3_e2e_rnnt_vocab.txt", pieces=True)
    elif name == "reference v3 ctc":
        encoder(folder / "v3_ctc.onnx", head="ctc")
    elif name == "sherpa v2 ctc":
        encoder(folder / "model.int8.onnx", head="ctc", v3=False, metadata=giga)
        tokens(folder / "tokens.txt", literal=True)
    elif name == "sherpa v3 rnnt":
        encoder(folder / "encoder.int8.onnx", head="rnnt", metadata=giga)
        predictor(folder / "decoder.onnx", kind="sherpa")
        joiner(folder / "joiner.onnx", kind="sherpa", normalised=False)
        tokens(folder / "tokens.txt", literal=True)
    elif name == "reference emo":
        encoder(folder / "emo.onnx", head="emo", v3=False)
    elif name == "reference v3 ssl":
        encoder(folder / "v3_ssl_encoder.onnx", head="ssl")
    return folder


TEXT_LAYOUTS = [
    "onnx-asr v2 ctc", "onnx-asr v3 e2e ctc int8", "onnx-asr v3 e2e rnnt", "reference v3 rnnt", "reference v3 ctc",
    "sherpa v2 ctc", "sherpa v3 rnnt",
]  # fmt: skip


def opened(folder: Path):
    entry = find(folder)
    return gigaam.load(entry.on_disk(), entry.card.params, threads=1)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    size = round(seconds * 16000)
    return (np.random.default_rng(seed).normal(size=size) * 0.1).astype(np.float32)


@pytest.mark.parametrize("name", TEXT_LAYOUTS)
def test_every_layout_opens_and_a_batch_is_its_items(tmp_path, name):
    model = opened(layout(tmp_path / "m", name))
    assert isinstance(model, AcousticModel)
    assert model.front.center == ("v2" in name)
    assert model.spec.tokens.pieces == ("e2e" in name)
    audio = [noise(0.9, 1), noise(0.5, 2), noise(0.9, 3), noise(0.004, 4)]
    together, after = model.step(audio, [0, 5, 0, 0])
    for i, samples in enumerate(audio):
        (alone,), _ = model.step([samples], [0])
        assert together[i].start == (5 if i == 1 else 0)
        assert together[i].values.shape == alone.values.shape
        assert np.abs(together[i].values - alone.values).max() < 1e-4
    assert after[1] == 5 + len(together[1])
    assert len(together[3]) == 1, "what is too short for one window is followed by silence"
    if "rnnt" in name:
        decoder = TransducerGreedy(model.transducer, model.spec.tokens)
        beams = decoder.advance([decoder.begin() for _ in audio], together)
        found = [decoder.best(beam) for beam in beams]
        assert any(best.tokens for best in found)
        one = [decoder.best(decoder.advance([decoder.begin()], [piece])[0]) for piece in together]
        assert [best.tokens for best in found] == [best.tokens for best in one]
        rows = model.transducer.join(together[0].values[:2], model.transducer.initial(2)[0])
        assert np.allclose(np.exp(rows).sum(axis=1), 1.0, atol=1e-5)


def test_names_of_exports_do_not_change_the_numbers(tmp_path):
    heard = {}
    for kind in ("new", "old", "sherpa"):
        predictor(tmp_path / "p.onnx", kind=kind)
        joiner(tmp_path / "j.onnx", kind=kind, normalised=kind != "sherpa")
        backends = [OrtBackend(tmp_path / name, threads=1) for name in ("p.onnx", "j.onnx")]
        transducer = gigaam.LstmTransducer(*backends, gigaam.LETTERS, 3)
        predicted, states = transducer.initial(3)
        predicted, states = transducer.predict(np.array([1, 2, 3]), states)
        predicted, _ = transducer.predict(np.array([4, 5, 4]), states)
        heard[kind] = transducer.join(np.ones((3, DIM), np.float32), predicted)
        assert heard[kind].shape == (3, 34)
    assert np.allclose(heard["new"], heard["old"], atol=1e-5)
    assert np.allclose(heard["new"], heard["sherpa"], atol=1e-5)
    assert not np.allclose(heard["new"][0], heard["new"][2])


@pytest.mark.parametrize(("leak", "batch", "mix"), [(False, "B", "any"), (True, "B", "equal"), (True, 1, "alone")])
def test_streams_share_a_run_only_where_it_changes_nothing(tmp_path, leak, batch, mix):
    encoder(tmp_path / "g.onnx", head="ctc", leak=leak, batch=batch)
    graph = gigaam.EncoderGraph(OrtBackend(tmp_path / "g.onnx", threads=1), "ctc")
    assert graph.mix == mix


def test_an_8_bit_graph_is_run_item_by_item(tmp_path):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    encoder(tmp_path / "g.onnx", head="ctc", leak=False)
    int8 = tmp_path / "g.int8.onnx"
    quantize_dynamic(tmp_path / "g.onnx", int8, weight_type=QuantType.QUInt8, op_types_to_quantize=["Conv", "MatMul"])
    model = gigaam.load({"model": int8}, {"task": "ctc"}, threads=1)
    audio = [noise(0.4, 1), noise(0.4, 2) * 0.01]
    together, _ = model.step(audio, [0, 0])
    assert model.graph.mix == "alone"
    for piece, samples in zip(together, audio, strict=True):
        assert np.array_equal(piece.values, model.step([samples], [0])[0][0].values)


def test_a_16_bit_graph_is_fed_with_its_own_type(tmp_path):
    encoder(tmp_path / "g.onnx", head="ctc")
    graph = onnx.load(tmp_path / "g.onnx")
    for value in (*graph.graph.input, *graph.graph.output):
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    for weight in graph.graph.initializer:
        if weight.data_type == FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), weight.name))
    onnx.save(graph, tmp_path / "h.onnx")
    full, half = (gigaam.load({"model": tmp_path / name}, {"task": "ctc"}, threads=1) for name in ("g.onnx", "h.onnx"))
    one, other = (model.step([noise(0.4, 1)], [0])[0][0].values for model in (full, half))
    assert other.dtype == np.float32
    assert np.abs(one - other).max() < 0.3


def test_nothing_asked_costs_nothing(tmp_path):
    model = opened(layout(tmp_path / "m", "reference emo"))
    model.graph._backend = None
    assert model.labels([]) == []


def test_emotion_gives_labels(tmp_path):
    model = opened(layout(tmp_path / "m", "reference emo"))
    long = noise(70.0)
    short, other, average = model.labels([noise(1.0, 1), noise(0.3, 2), long])
    assert list(short["emotion"]) == ["angry", "sad", "neutral", "positive"]
    assert sum(other["emotion"].values()) == pytest.approx(1.0, abs=1e-5)
    assert model.labels([noise(0.3, 2)])[0]["emotion"] == pytest.approx(other["emotion"], abs=1e-5)
    assert sum(average["emotion"].values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("seconds", [0.001, 0.5, 31.0, 70.3])
def test_embeddings_of_any_length(tmp_path, seconds):
    model = opened(layout(tmp_path / "m", "reference v3 ssl"))
    samples = noise(seconds)
    found = model.embed(samples)
    whole = model.graph(model.features([samples]))[0]
    assert found.shape == whole.shape
    assert np.abs(found - whole).max() < 1e-4


def test_only_encoders_embed(tmp_path):
    model = opened(layout(tmp_path / "m", "reference v3 ctc"))
    with pytest.raises(IncompatibleParts, match="log-probs"):
        model.embed(noise(1.0))


@pytest.mark.parametrize(
    ("samples", "error", "match"),
    [
        (np.full(4000, 9000.0), BadSamples, r"\[-1, 1\]"),
        (np.full(4000, np.nan), BadSamples, r"\[-1, 1\]"),
        (np.zeros((2, 4000)), BadSamples, "mono"),
        (np.zeros(16000 * 201), AudioTooLong, "200 s"),
    ],
)
def test_what_is_no_phrase_is_refused(tmp_path, samples, error, match):
    model = opened(layout(tmp_path / "m", "reference v3 ctc"))
    with pytest.raises(error, match=match):
        model.step([samples], [0])


def test_a_missing_file_is_named(tmp_path):
    folder = layout(tmp_path / "m", "onnx-asr v3 e2e rnnt")
    (folder / "v3_e2e_rnnt_joint.onnx").unlink()
    entry = find(folder)
    assert [entry.path(role).name for role in entry.missing()] == ["v3_e2e_rnnt_joint.onnx"]
    folder = layout(tmp_path / "n", "onnx-asr v3 e2e ctc int8")
    (folder / "v3_e2e_ctc_vocab.txt").unlink()
    entry = find(folder)
    assert [entry.path(role).name for role in entry.missing()] == ["v3_e2e_ctc_vocab.txt"]
    with pytest.raises(BadCard, match="'joiner'"):
        gigaam.load({"encoder": tmp_path, "decoder": tmp_path}, {"task": "rnnt"})


def test_of_several_models_the_same_one_is_taken(tmp_path):
    folder = layout(tmp_path / "m", "reference v3 rnnt")
    for name in ("v3_ctc.onnx", "v3_e2e_ctc.onnx", "v3_rnnt_encoder.int8.onnx"):
        (folder / name).write_bytes(b"")
    card = recognise(folder)
    assert card.files["encoder"].path == "v3_rnnt_encoder.onnx"
    assert card.params["task"] == "rnnt"


def test_other_folders_are_not_recognised(tmp_path):
    assert recognise(tmp_path) is None
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    (tmp_path / "tokens.txt").write_text("a 0")
    assert recognise(tmp_path) is None


def test_graphs_of_other_families_are_refused(tmp_path):
    encoder(tmp_path / "a.onnx", head="ctc", names=("x", "y"))
    with pytest.raises(BadModelFile, match="features, feature_lengths"):
        gigaam.load({"model": tmp_path / "a.onnx"}, {"task": "ctc"})
    encoder(tmp_path / "b.onnx", head="ctc", classes=20)
    with pytest.raises(BadModelFile, match="20 classes"):
        gigaam.load({"model": tmp_path / "b.onnx"}, {"task": "ctc"}).step([noise(0.1)], [0])
    joiner(tmp_path / "j.onnx", kind="new", classes=9)
    predictor(tmp_path / "p.onnx", kind="new")
    encoder(tmp_path / "e.onnx", head="rnnt")
    files = {"encoder": tmp_path / "e.onnx", "decoder": tmp_path / "p.onnx", "joiner": tmp_path / "j.onnx"}
    with pytest.raises(BadModelFile, match="9 classes"):
        gigaam.load(files, {"task": "rnnt"})
    with pytest.raises(BadModelFile, match="predictor"):
        gigaam.load({**files, "decoder": tmp_path / "j.onnx"}, {"task": "rnnt"})


@pytest.mark.parametrize(
    "params",
    [{}, {"task": "asr"}, {"task": "ctc", "speed": 1}, {"task": "ctc", "n_fft": 3}, {"task": "ctc", "center": 1},
     {"task": "ctc", "words": "x"}, {"task": "ctc", "hop": 80}],
)  # fmt: skip
def test_wrong_parameters_are_refused(tmp_path, params):
    encoder(tmp_path / "g.onnx", head="ctc")
    with pytest.raises(BadCard):
        gigaam.load({"model": tmp_path / "g.onnx"}, params)


@pytest.mark.parametrize("limit", [0, 101, True, "3"])
def test_the_symbol_limit_is_checked(tmp_path, limit):
    folder = layout(tmp_path / "m", "reference v3 rnnt")
    entry = find(folder)
    with pytest.raises(BadCard, match="max_symbols"):
        gigaam.load(entry.on_disk(), {**entry.card.params, "max_symbols": limit})
    assert gigaam.load(entry.on_disk(), {**entry.card.params, "max_symbols": 3}).transducer.max_symbols == 3


def test_the_checkpoints_tables_are_used(tmp_path):
    folder = layout(tmp_path / "m", "reference v3 ctc")
    front = log_mel(320, center=False)
    np.savez(folder / "frontend.npz", window=front.window * 0.5, fb=front.fb)
    files = {"model": folder / "v3_ctc.onnx", "frontend": folder / "frontend.npz"}
    model = gigaam.load(files, {"task": "ctc"})
    assert np.array_equal(model.front.window, front.window * 0.5)
    with pytest.raises(BadModelFile, match="400"):
        gigaam.load(files, {"task": "ctc", "n_fft": 400})
    (folder / "frontend.npz").write_bytes(b"PK nonsense")
    with pytest.raises(BadModelFile, match="front end"):
        read_log_mel(folder / "frontend.npz", center=False)


@pytest.mark.parametrize("center", [True, False])
def test_features_in_blocks_are_the_features(center):
    front = log_mel(400 if center else 320, center=center)
    samples = noise(12.0)
    whole = front(samples)
    assert len(whole) == front.num_frames(len(samples))
    rng = np.random.default_rng(1)
    for _ in range(5):
        cuts = np.sort(rng.integers(0, len(samples), 40))
        blocks = list(front.blocks(np.split(samples, cuts)))
        assert np.abs(np.concatenate(blocks) - whole).max() < 1e-5
    assert max(len(block) for block in front.blocks([samples])) <= 1024
    assert len(front(samples[: front.shortest])) == front.num_frames(front.shortest) >= 1


def test_rounding_to_bfloat16():
    values = np.array([1.0, 1.00390625, 1.01171875, 3.14159, -2.7182817, 1e-30], np.float32)
    found = to_bfloat16(values)
    assert np.array_equal(found[:3], np.array([1.0, 1.0, 1.015625], np.float32)), "ties go to even"
    assert np.abs(found / values - 1).max() < 2**-8
    assert not (found.view(np.uint32) & 0xFFFF).any()


def test_token_tables(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("  0\nа 1\n<blk> 2\n", "utf-8")
    assert read_tokens(path).symbols == (" ", "а", "")
    assert not read_tokens(path).pieces
    path.write_text("<blk> 0\n▁да 1\n▁ 2\n<unk> 3\n", "utf-8")
    table = read_tokens(path)
    assert table.pieces
    assert table.space is None
    assert table.text([1, 3, 2, 1]) == " да ⁇   да"
    for text in ("а 1\n", "а 0\nб 0\n", "а x\n", "", "а 0\nб 1\n", "а 0\n<blk> 9999999999\n"):
        path.write_text(text, "utf-8")
        with pytest.raises(BadModelFile):
            read_tokens(path)
    with pytest.raises(ModelNotFound):
        read_tokens(tmp_path / "none")
    path = tmp_path / "t.model"
    path.write_bytes(b"\x0a\x07\x0a\x05<unk>\x0a\x0c\x0a\x05\xe2\x96\x81\xd0\xb0\x15\x00\x00\x80\x3f\x12\x00")
    assert read_tokens(path).symbols == ("<unk>", " а", "")
    for data in (b"", b"\x0a\x07\x0a\x05<un", b"\x12\x00"):
        path.write_bytes(data)
        with pytest.raises(BadModelFile):
            read_tokens(path)


def test_summary_of_a_graph_and_of_a_damaged_one(tmp_path):
    path = tmp_path / "g.onnx"
    encoder(path, head="ctc", metadata={"is_giga_am": "1"})
    summary = summarise(path)
    assert summary.inputs == ("features", "feature_lengths")
    assert summary.outputs == ("log_probs", "encoded_lengths")
    assert summary.metadata == {"is_giga_am": "1"}
    assert (DIM, 64, 5) in summary.weights.values()
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in [0, 1, 7, *rng.integers(8, len(data), 40).tolist()]:
        path.write_bytes(data[:size])
        with pytest.raises(BadModelFile):
            summarise(path)
    for _ in range(200):  # other damage may pass unseen, but raises nothing else
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(BadModelFile):
            summarise(path)


SPEECH = Path(__file__).parents[1] / "data" / "audio" / "speech.wav"


@pytest.mark.parametrize("name", TEXT_LAYOUTS)
def test_transcribe_takes_every_folder(tmp_path, name, capsys):
    folder = layout(tmp_path / "m", name)
    assert main(["transcribe", str(SPEECH), "--model", str(folder), "--json"]) == 0
    transcript = json.loads(capsys.readouterr().out)["transcript"]
    words = [word for segment in transcript["segments"] for word in segment["words"]]
    assert words
    assert " ".join(word["word"] for word in words) == transcript["text"]
    assert all(0 <= word["start"] < word["end"] <= transcript["duration"] for word in words)


def test_our_own_layout_is_a_folder_with_a_card(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    encoder(folder / "encoder.onnx", head="rnnt", leak=False)
    predictor(folder / "decoder.onnx", kind="new", classes=len(PIECES))
    joiner(folder / "joiner.onnx", kind="new", classes=len(PIECES))
    tokens(folder / "tokens.txt", pieces=True)
    front = log_mel(320, center=False, rounded=True)
    np.savez(folder / "frontend.npz", window=front.window, fb=front.fb)
    files = {role: CardFile(f"{role}.onnx") for role in ("encoder", "decoder", "joiner")}
    files |= {"tokens": CardFile("tokens.txt"), "frontend": CardFile("frontend.npz")}
    params = {"task": "rnnt", "n_fft": 320, "hop": 160, "center": False, "max_symbols": 3, "words": "pieces"}
    card = Card("mine", "gigaam", "ru", "MIT", files=files, params=params, decoder={"beam_width": 4})
    (folder / "card.toml").write_text(card.to_toml(), "utf-8")
    asr = rechka.load(folder, threads=1)
    assert asr.name == "mine"
    assert asr.transcribe(SPEECH).words
    (folder / "joiner.onnx").unlink()
    with pytest.raises(ModelNotFound, match=r"joiner\.onnx"):
        rechka.load(folder)


def test_hotwords_reach_a_transducer(tmp_path):
    asr = rechka.load(layout(tmp_path / "m", "reference v3 rnnt"), threads=1)
    plain = asr.transcribe(SPEECH).text
    assert "щука" not in plain
    assert "щука" in asr.transcribe(SPEECH, hotwords={"щука": 60.0}).text.split()


def test_emotion_of_a_recording(tmp_path):
    asr = rechka.load(layout(tmp_path / "m", "reference emo"), threads=1)
    found = asr.transcribe(SPEECH)
    assert found.text == ""
    assert found.segments
    for segment in found.segments:
        assert sum(segment.labels["emotion"].values()) == pytest.approx(1.0, abs=1e-5)
        assert 0 <= segment.start < segment.end <= found.duration
    stream = asr.open()
    samples = np.concatenate([chunk[0].samples for chunk in rechka.open_source(str(SPEECH), sample_rate=16000)])
    for part in np.array_split(samples, 23):
        stream.feed(part)
    stream.finish()
    live = [event.segment for event in stream.take() if isinstance(event, rechka.Final)]
    assert [s.labels for s in live] == [s.labels for s in found.segments]
    with pytest.raises(UsageError, match="hotwords"):
        asr.open(hotwords={"да": 1.0})


def test_embeddings_of_a_recording(tmp_path):
    asr = rechka.load(layout(tmp_path / "m", "reference v3 ssl"), threads=1)
    samples = noise(1.0)
    found = asr.embed((samples, 16000))
    assert found.shape == (25, DIM)
    assert np.abs(found - asr.recognizer.model.embed(samples)).max() < 1e-4
    with pytest.raises(IncompatibleParts, match="embed"):
        asr.transcribe(SPEECH)
    with pytest.raises(IncompatibleParts, match="no embeddings"):
        rechka.load("toy").embed((samples, 16000))
