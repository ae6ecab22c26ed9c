"""GigaAM's front end, RNN-T search and words against golden vectors of the reference."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from rechka.backends.ort import OrtBackend
from rechka.decoding import TransducerBeam, TransducerGreedy
from rechka.features.gigaam import LogMel, log_mel
from rechka.models.gigaam import LETTERS
from rechka.models.gigaam_graphs import LstmTransducer
from rechka.models.token_table import read_tokens
from rechka.options import DecoderOptions
from rechka.text.words import to_words, word_frames
from rechka.timeline import Timeline
from rechka.types import Encoded, Hypothesis, Tokens

onnx = pytest.importorskip("onnx")
safetensors = pytest.importorskip("safetensors.numpy")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "data" / "gigaam"
RNNT = ("v2_rnnt", "v3_e2e_rnnt")


def samples(name: str) -> np.ndarray:
    with wave.open(str(GOLDEN / f"{name}.wav")) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return data.astype(np.float32) / np.float32(32768)


def arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / path) as file:
        return dict(file)


def weights(model: str) -> dict[str, np.ndarray]:
    return safetensors.load_file(GOLDEN / model / "model.safetensors")


def expected(model: str) -> dict:
    return json.loads((GOLDEN / model / "expected.json").read_text("utf-8"))


@pytest.mark.parametrize("wav", ["a", "b"])
@pytest.mark.parametrize(("key", "model", "center"), [("v2", "v2_ctc", True), ("v3_bf16", "v3_ctc", False)])
@pytest.mark.parametrize("stored", [True, False])
def test_features(wav, key, model, center, stored):
    tables = weights(model)
    window, bank = (
        tables[f"preprocessor.featurizer.0.{name}"] for name in ("spectrogram.window", "mel_scale.fb")
    )  # fmt: skip
    front = LogMel(window, bank, center)
    if not stored:
        front = log_mel(len(window), center=center, rounded=not center)
        assert np.abs(front.window - window).max() < 1e-6
        assert np.abs(front.fb - bank).max() < 1e-5
    wanted = arrays("features.npz")[f"{key}.{wav}"].T
    found = front(samples(wav))
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 2e-3
    assert np.abs(found - wanted).mean() < 1e-4


@pytest.fixture(scope="module", params=RNNT)
def rnnt(request, tmp_path_factory):
    """Name, and a maker of the transducer from the reference's weights, exported under the reference's names."""
    folder = tmp_path_factory.mktemp(request.param)
    table = weights(request.param)
    head = {name.removeprefix("head."): value for name, value in table.items() if name.startswith("head.")}
    classes, hidden = head["decoder.embed.weight"].shape
    tokens = LETTERS if classes == 34 else read_tokens(GOLDEN / request.param / f"{request.param}_tokenizer.model")
    _predictor(folder / "decoder.onnx", head, hidden)
    _joiner(folder / "joint.onnx", head, classes)
    backends = [OrtBackend(folder / name, threads=1) for name in ("decoder.onnx", "joint.onnx")]
    return request.param, tokens, lambda limit: LstmTransducer(*backends, tokens, limit)


def _predictor(path: Path, head: dict, hidden: int) -> None:
    def gates(name: str) -> np.ndarray:  # torch orders the gates i, f, g, o; ONNX i, o, f, g
        i, f, g, o = np.split(head[f"decoder.lstm.{name}_l0"], 4)
        return np.concatenate([i, o, f, g])[None]

    embedding = head["decoder.embed.weight"].copy()
    embedding[-1] = 0.0  # the blank's row, random here: torch starts from a zero vector and never looks at it
    arrays = {
        "embed": embedding,
        "w": gates("weight_ih"),
        "r": gates("weight_hh"),
        "b": np.concatenate([gates("bias_ih"), gates("bias_hh")], axis=1),
        "axis": np.array([1]),
    }
    nodes = [
        helper.make_node("Gather", ["embed", "x"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r", "b", "", "hi", "ci"], ["y", "ho", "co"], hidden_size=hidden),
        helper.make_node("Squeeze", ["y", "axis"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["dec"], perm=[1, 0, 2]),
    ]
    state = (TensorProto.FLOAT, [1, "B", hidden])
    inputs = [("x", TensorProto.INT64, ["B", 1]), ("hi", *state), ("ci", *state)]
    outputs = [("dec", TensorProto.FLOAT, ["B", 1, hidden]), ("ho", *state), ("co", *state)]
    _save(path, nodes, arrays, inputs, outputs)


def _joiner(path: Path, head: dict, classes: int) -> None:
    names = {"e": "joint.enc", "p": "joint.pred", "o": "joint.joint_net.1"}
    arrays = {f"{key}w": np.ascontiguousarray(head[f"{name}.weight"].T) for key, name in names.items()}
    arrays |= {f"{key}b": head[f"{name}.bias"] for key, name in names.items()}
    arrays |= {"one": np.array([1]), "two": np.array([2])}
    nodes = []
    for key, source, axis in (("e", "enc", "two"), ("p", "dec", "one")):
        nodes += [
            helper.make_node("Transpose", [source], [f"{key}0"], perm=[0, 2, 1]),
            helper.make_node("MatMul", [f"{key}0", f"{key}w"], [f"{key}1"]),
            helper.make_node("Add", [f"{key}1", f"{key}b"], [f"{key}2"]),
            helper.make_node("Unsqueeze", [f"{key}2", axis], [f"{key}3"]),
        ]
    nodes += [
        helper.make_node("Add", ["e3", "p3"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["act"]),
        helper.make_node("MatMul", ["act", "ow"], ["out"]),
        helper.make_node("Add", ["out", "ob"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["joint"], axis=3),
    ]
    widths = len(arrays["ew"]), len(arrays["pw"])
    inputs = [(name, TensorProto.FLOAT, ["B", w, 1]) for name, w in zip(("enc", "dec"), widths, strict=True)]
    _save(path, nodes, arrays, inputs, [("joint", TensorProto.FLOAT, ["B", 1, 1, classes])])


def _save(path: Path, nodes: list, arrays: dict, inputs: list, outputs: list) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def encoded(model: str) -> list[Encoded]:
    table = arrays(f"{model}/expected.npz")
    return [Encoded(np.ascontiguousarray(table[f"{wav}.encoded"].T)) for wav in "ab"]


@pytest.mark.parametrize("limit", [10, 3])
def test_greedy_search_with_both_published_limits(rnnt, limit):
    model, tokens, make = rnnt
    suffix = "" if limit == 10 else "_max3"
    cases = expected(model)["cases"]
    for decoder in (
        TransducerGreedy(make(limit), tokens),
        TransducerBeam(make(limit), tokens, DecoderOptions(beam_width=1)),
    ):
        beams = decoder.advance([decoder.begin(), decoder.begin()], encoded(model))
        for beam, case in zip(beams, (cases["a"], cases["b"]), strict=True):
            best = decoder.best(beam)
            assert list(best.tokens) == case[f"token_ids{suffix}"]
            assert list(best.frames) == case[f"token_frames{suffix}"]
            if limit == 10:
                assert tokens.text(best.tokens).removeprefix(" " if tokens.pieces else "") == case["text"]
                shift = case["samples"] / 16000 / case["encoder_frames"]
                words = [[word, a * shift, b * shift] for word, a, b in word_frames(best.tokens, best.frames, tokens)]
                assert [word for word, _, _ in words] == [word for word, _, _ in case["words"]]
                times = [time for _, *pair in words for time in pair]
                assert times == pytest.approx([time for _, *pair in case["words"] for time in pair], abs=1e-6)


def test_joiner_rows_in_the_order_of_the_reference(rnnt):
    model, _, make = rnnt
    transducer = make(10)
    for wav, piece in zip("ab", encoded(model), strict=True):
        predicted, states = transducer.initial(1)
        rows = []
        for row in piece.values:
            for _ in range(10):
                rows.append(transducer.join(row[None], predicted)[0])
                token = int(rows[-1].argmax())
                if token == transducer.blank:
                    break
                predicted, states = transducer.predict(np.array([token]), states)
        wanted = arrays(f"{model}/expected.npz")[f"{wav}.joint_rows"]
        assert np.abs(np.stack(rows) - wanted).max() < 5e-3


@pytest.mark.parametrize("limit", [10, 3])
def test_beam_search_is_not_worse_than_greedy(rnnt, limit):
    model, tokens, make = rnnt
    greedy, beam = (
        TransducerGreedy(make(limit), tokens),
        TransducerBeam(make(limit), tokens, DecoderOptions(beam_width=8)),
    )
    for piece in encoded(model):
        plain = greedy.best(greedy.advance([greedy.begin()], [piece])[0])
        found = beam.nbest(beam.advance([beam.begin()], [piece])[0], 8)
        assert found[0].score >= plain.score
        assert len({h.tokens for h in found}) == len(found)


@pytest.mark.parametrize("case", json.loads((GOLDEN / "words.json").read_text("utf-8")), ids=lambda case: case["name"])
def test_words(case):
    pieces = case["name"].startswith("sp_")
    symbols = [piece.replace("\u2581", " ") for piece in case["pieces"]]
    tokens = Tokens((*symbols, ""), blank=len(symbols), pieces=pieces)
    ids = tuple(range(len(symbols)))
    shift = case["frame_shift"]
    found = [
        [text, first * shift, last * shift] for text, first, last in word_frames(ids, case["token_frames"], tokens)
    ]
    assert [word for word, _, _ in found] == [word for word, _, _ in case["words"]]
    for mine, theirs in zip(found, case["words"], strict=True):
        assert mine[1:] == pytest.approx(theirs[1:], abs=1e-6)
    # The words of a transcript are the same, put apart, with what SentencePiece writes for an unknown piece.
    timeline = Timeline(16000 * case["encoder_frames"], case["audio_samples"])
    best = Hypothesis(ids, tuple(case["token_frames"]), (-0.1,) * len(ids), 0.0)
    words = to_words(best, tokens, timeline, end=case["audio_samples"] / 16000)
    assert " ".join(word.text for word in words).split() == tokens.text(ids).split()
    for word, theirs in zip(words, case["words"], strict=True):
        assert word.start == pytest.approx(theirs[1], abs=1e-6)
        assert word.end == pytest.approx(theirs[2], abs=1e-6)
