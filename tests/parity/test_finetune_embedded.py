"""The embedded model in fine-tuning: its weights come out of its graph, it hears what it hears in use, and returns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
onnx = pytest.importorskip("onnx", reason="the model is exported")

import rechka  # noqa: E402
from rechka.decoding import CtcGreedy  # noqa: E402
from rechka.errors import BadModelFile  # noqa: E402
from rechka.export.conformer import export, name_weights, read_graph, refill  # noqa: E402
from rechka.export.source import read_source  # noqa: E402
from rechka.hub.card import Card  # noqa: E402
from rechka.hub.registry import find  # noqa: E402
from rechka.models import conformer  # noqa: E402
from rechka.nn.conformer import ConformerConfig, StreamingConformer, load_conformer  # noqa: E402
from rechka.train.finetune import DataOptions, DevSet, FinetuneConfig, Optimisation, finetune  # noqa: E402
from rechka.train.finetune.learners import open_learner  # noqa: E402

RECORDING = Path(__file__).parents[2] / "examples" / "prompt.wav"
NAME = "rechka-mini"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def samples() -> np.ndarray:
    return np.concatenate([chunk[0].samples for chunk in rechka.open_source(RECORDING, sample_rate=8000)])


def test_it_hears_in_training_what_it_hears_in_a_stream() -> None:
    entry = find(NAME)
    learner = open_learner(read_source(entry.folder))
    learner.module.eval()
    audio = learner.laid_out(samples(), None)
    batch = torch.from_numpy(np.stack([audio, np.pad(audio[:16000], (0, len(audio) - 16000))]))
    with torch.no_grad():
        features, counts = learner.features(batch, torch.tensor([len(audio), 16000]))
        heard = learner.read(features, counts)

    model = conformer.load({"model": entry.path("model")}, entry.card.params, threads=1)
    frames, _ = model.step([audio], [model.initial_state()])
    greedy = CtcGreedy(model.spec.tokens)
    best = greedy.best(greedy.advance([greedy.begin()], frames)[0])
    assert heard[0] == model.spec.tokens.text(best.tokens).strip()
    assert len(heard[0].split()) > 5
    assert heard[0].startswith(heard[1].rsplit(" ", 1)[0])  # the beginning alone, and in a batch
    assert learner.num_frames(len(audio)) == len(frames[0].values)


def test_the_losses_fall_to_what_the_labels_are_worth() -> None:
    """The loss of the right text is far below that of another one; the gradient reaches every parameter."""
    learner = open_learner(read_source(find(NAME).folder))
    audio = torch.from_numpy(learner.laid_out(samples(), None)[None])
    features, counts = learner.features(audio, torch.tensor([audio.shape[1]]))
    right = learner.targets.encode("нажмите звездочку для получения помощи или решетку для выхода")
    wrong = learner.targets.encode("сегодня хорошая погода и мы пойдем гулять в парк все вместе")
    good, bad = (learner.losses(features, counts, [ids])[0] for ids in (right, wrong))
    assert good < bad / 5
    good.backward()
    assert [name for name, p in learner.module.named_parameters() if p.grad is None or not p.grad.any()] == []
    depths = {learner.depth(name) for name, _ in learner.module.named_parameters()}
    assert depths == set(range(learner.num_layers + 2))


def test_a_run(tmp_path: Path) -> None:
    shutil.copy(RECORDING, tmp_path / "a.wav")
    row = {"audio_filepath": "a.wav", "text": "нажмите звездочку для получения помощи или решетку для выхода"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    source = str(tmp_path / "m.jsonl")
    options = Optimisation(steps=2, rate=1e-3, batch_seconds=20.0, evals=1, ema=0.0, patience=0)
    config = FinetuneConfig(NAME, (DevSet("dev", (source,), 2),), DataOptions(train=(source,)), optim=options)
    finetune(config, tmp_path / "out")
    card, base = Card.read(tmp_path / "out" / "card.toml"), find(NAME).card
    assert (card.family, card.license, card.params, card.confidence) == (
        base.family, base.license, base.params, base.confidence
    )  # fmt: skip
    assert card.files["lm"].sha256 == base.files["lm"].sha256
    assert "нажмите" in rechka.load(tmp_path / "out", threads=1).transcribe(RECORDING).text
    before, _ = read_graph(find(NAME).path("model"))
    after, _ = read_graph(tmp_path / "out" / "model.onnx")
    assert set(before) == set(after)
    assert np.abs(before["head.weight"] - after["head.weight"]).max() > 1e-5


def test_a_graph_tells_nothing_of_the_machine_that_wrote_it(tmp_path: Path) -> None:
    model = StreamingConformer(ConformerConfig(channels=(2, 3), dim=8, heads=2, slow_blocks=1, left=16))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))  # equal ones would become one
    export(model, tmp_path / "m")
    for path in (tmp_path / "m", find(NAME).path("model")):
        assert b"conformer.py" not in path.read_bytes()
        graph = onnx.load(str(path))
        assert [prop.key for prop in graph.metadata_props] == ["rechka_family", "rechka_config"]
        assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)


def test_weights_in_the_graph(tmp_path: Path) -> None:
    """Other weights go into the graph and come out again; torch and ONNX Runtime agree, or nothing is written."""
    arrays, told = read_graph(find(NAME).path("model"))
    model = load_conformer(arrays, told, what=NAME)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    assert refill(model, find(NAME).path("model"), tmp_path / "m.onnx") < 1e-4
    again, _ = read_graph(tmp_path / "m.onnx")
    assert set(again) == set(model.state_dict())
    assert all(np.array_equal(again[name], value.numpy()) for name, value in model.state_dict().items())

    other = StreamingConformer(ConformerConfig(channels=(2, 3), dim=8, heads=2, slow_blocks=1, left=16))
    with pytest.raises(BadModelFile, match="another configuration"):
        refill(other, tmp_path / "m.onnx", tmp_path / "x.onnx")
    with pytest.raises(BadModelFile, match="has lost"):
        name_weights(tmp_path / "m.onnx", other)
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    with pytest.raises(BadModelFile, match="differs from torch"):
        refill(model, tmp_path / "m.onnx", tmp_path / "x.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    (tmp_path / "x.onnx").write_bytes(b"no graph at all")
    with pytest.raises(BadModelFile, match="carries no weights"):
        read_source(tmp_path / "x.onnx")
    graph = onnx.load(str(tmp_path / "m.onnx"))
    graph.metadata_props[-1].value = "[" * 100_000
    onnx.save(graph, str(tmp_path / "x.onnx"))
    with pytest.raises(BadModelFile, match="carries no weights"):
        read_graph(tmp_path / "x.onnx")
