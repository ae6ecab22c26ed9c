"""``rechka models convert``: from a checkpoint to a folder that transcribes."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
safetensors = pytest.importorskip("safetensors.numpy")

from rechka.cli.main import main  # noqa: E402
from rechka.decoding import CtcGreedy  # noqa: E402
from rechka.hub.card import Card  # noqa: E402
from rechka.hub.checkpoints import TorchFile  # noqa: E402
from rechka.models import gigaam  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "data" / "gigaam"
TONE = Path(__file__).parents[1] / "data" / "tone"
TINY = GOLDEN / "tiny_v3_ctc.ckpt"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(*arguments: object) -> int:
    return main(["models", "convert", *map(str, arguments)])


def tokens_of(folder: Path, audio: str) -> list[int]:
    """What the model of a folder hears in a golden file, without the voice activity detector."""
    card = Card.read(folder / "card.toml")
    model = gigaam.load({role: folder / file.path for role, file in card.files.items()}, card.params, threads=1)
    with wave.open(str(GOLDEN / f"{audio}.wav")) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    frames, _ = model.step([data.astype(np.float32) / np.float32(32768)], [0])
    greedy = CtcGreedy(model.spec.tokens)
    return list(greedy.best(greedy.advance([greedy.begin()], frames)[0]).tokens)


def expected(audio: str) -> list[int]:
    return json.loads((GOLDEN / "tiny_v3_ctc.expected.json").read_text("utf-8"))[audio]["token_ids"]


def test_the_published_layout_end_to_end(tmp_path, capsys):
    out = tmp_path / "deep" / "model"
    assert run(TINY, "--out", out, "--int8", "--name", "my-model") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert "fp32: log-probabilities differ" in printed.err
    assert "int8: log-probabilities differ" in printed.err
    card = Card.read(out / "card.toml")
    assert (card.name, card.family, card.language, card.license) == ("my-model", "gigaam", "ru", "MIT")
    assert {role for role, file in card.files.items() if not file.optional} == {"model", "tokens", "frontend"}
    for file in card.files.values():
        data = (out / file.path).read_bytes()
        assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert {path.name for path in out.iterdir()} == {file.path for file in card.files.values()} | {"card.toml"}
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    assert (out / "tokens.txt").read_text("utf-8").startswith("\u2581 0\nа 1\n")
    with TorchFile(TINY) as file:
        arrays = file.read(file.tensors("state_dict"))
    saved = safetensors.load_file(out / "model.safetensors")
    assert set(saved) == set(arrays)
    assert all(np.array_equal(saved[name], arrays[name]) for name in arrays)
    assert json.loads((out / "config.json").read_text("utf-8"))["model_name"] == "v3_ctc"
    assert abs(len(tokens_of(out, "b")) - len(expected("b"))) <= 3  # 8 bits move a letter or two of such weights
    assert main(["models", "verify", str(out)]) == 0
    capsys.readouterr()
    assert main(["transcribe", str(GOLDEN / "b.wav"), "--model", str(out), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], bool(found["text"])) == ("my-model", True)


def test_the_text_is_that_of_the_reference(tmp_path):
    assert run(TINY, "--out", tmp_path / "model") == 0
    for audio in "ab":
        assert tokens_of(tmp_path / "model", audio) == expected(audio)


def test_what_it_made_can_be_converted_again(tmp_path):
    assert run(TINY, "-o", tmp_path / "one") == 0
    assert run(tmp_path / "one", "-o", tmp_path / "two") == 0
    assert (tmp_path / "one" / "model.onnx").read_bytes() == (tmp_path / "two" / "model.onnx").read_bytes()
    assert Card.read(tmp_path / "one" / "card.toml") == Card.read(tmp_path / "two" / "card.toml")


def test_the_layout_of_hugging_face(tmp_path):
    """``config.json`` with everything inside, ``pytorch_model.bin`` with a prefix, the tokenizer under a plain name."""
    repo = tmp_path / "GigaAM-v3"
    repo.mkdir()
    golden = GOLDEN / "v3_e2e_rnnt"
    config = json.loads((golden / "config.json").read_text("utf-8"))
    config["encoder"]["_target_"] = "modeling_gigaam.ConformerEncoder"
    (repo / "config.json").write_text(json.dumps({"architectures": ["x"], "cfg": {"model": {"cfg": config}}}))
    arrays = safetensors.load_file(golden / "model.safetensors")
    torch.save({f"model.{name}": torch.from_numpy(a) for name, a in arrays.items()}, repo / "pytorch_model.bin")
    assert run(repo, "--out", tmp_path / "no") == 3  # no tokenizer yet
    assert not (tmp_path / "no").exists()
    shutil.copy(golden / "v3_e2e_rnnt_tokenizer.model", repo / "tokenizer.model")
    assert run(repo, "--out", tmp_path / "out") == 0
    card = Card.read(tmp_path / "out" / "card.toml")
    assert card.name == "gigaam-v3-e2e-rnnt"
    assert card.params["words"] == "pieces"
    assert {"encoder", "decoder", "joiner", "tokens", "frontend"} <= set(card.files)


def fine_tuned(path: Path, **hyper: object) -> Path:
    """As Lightning saves it in fine-tuning: prefixes of the parts, others to drop, an optimizer, no configuration."""
    with TorchFile(TINY) as file:
        arrays = file.read(file.tensors("state_dict"))
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    state |= {"loss.weight": torch.ones(3), "val_wer.total": torch.tensor(4)}
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    saved = {"epoch": 3, "pytorch-lightning_version": "2.5", "state_dict": state, "hyper_parameters": hyper}
    torch.save({**saved, "optimizer_states": [optimizer.state_dict()], "callbacks": {}}, path)
    return path


def test_a_fine_tuned_file(tmp_path, capsys):
    with TorchFile(TINY) as file:
        config = file.section("cfg")
    path = fine_tuned(tmp_path / "best.ckpt", model_name="v3_ctc", model_cfg=config)
    assert run(path, "--out", tmp_path / "out") == 0
    card = Card.read(tmp_path / "out" / "card.toml")
    assert (card.license, card.title["en"]) == ("unknown", "GigaAM v3_ctc, fine-tuned")
    assert run(TINY, "--out", tmp_path / "base") == 0
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "base" / "model.onnx").read_bytes()
    capsys.readouterr()


def test_a_fine_tuned_file_without_configuration(tmp_path, capsys):
    """The shapes tell everything but the heads of rotary attention: the published models have 16, here 16 wide ones."""
    path = fine_tuned(tmp_path / "best.ckpt", model_name="v3_ctc")
    assert run(path, "--out", tmp_path / "out") == 3  # a width of 16 and 16 heads: one number a head cannot be rotated
    assert "cannot be shared by 16 heads" in capsys.readouterr().err


def test_t_one(tmp_path, capsys):
    folder = tmp_path / "mini"
    folder.mkdir()
    shutil.copy(TONE / "mini.safetensors", folder / "model.safetensors")
    shutil.copy(TONE / "mini_config.json", folder / "config.json")
    assert run(folder, "--out", tmp_path / "out", "--int8") == 0
    card = Card.read(tmp_path / "out" / "card.toml")
    assert (card.family, card.name) == ("tone", "t-one-mini")
    assert card.files["model"].path == "model.int8.onnx"
    capsys.readouterr()
    assert main(["transcribe", str(GOLDEN / "a.wav"), "--model", str(tmp_path / "out")]) == 0


def test_whisper(tmp_path, capsys):
    """A folder of transformers is told by its configuration and goes another way."""
    pytest.importorskip("ctranslate2")
    from rechka.testing.whisper import write_checkpoint

    write_checkpoint(tmp_path / "tuned")
    assert run(tmp_path / "tuned", "--out", tmp_path / "out", "--name", "my-whisper") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}\n"
    card = Card.read(tmp_path / "out" / "card.toml")
    assert (card.name, card.family) == ("my-whisper", "whisper")


class Bomb:
    def __reduce__(self):
        return print, ("it ran",)


def hostile(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"cfg": Bomb(), "state_dict": {}}, 2))
    return path


def odd_config(path: Path) -> Path:
    with TorchFile(TINY) as file:
        arrays, config = file.read(file.tensors("state_dict")), file.section("cfg")
    config["encoder"]["d_model"] = 32
    torch.save({"cfg": config, "state_dict": {n: torch.from_numpy(a) for n, a in arrays.items()}}, path)
    return path


def other(path: Path) -> Path:
    torch.save({"state_dict": {"weight": torch.ones(3)}}, path)
    return path


def empty(path: Path) -> Path:
    torch.save({"state_dict": {}}, path)
    return path


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (lambda path: path, "model.not_found", "no checkpoint at"),
        (hostile, "model.bad_file", "refused and nothing was run"),
        (odd_config, "model.bad_file", "wrong shapes"),
        (other, "model.bad_file", "not GigaAM's"),
        (empty, "model.bad_file", "holds no weights"),
        (lambda path: path.write_bytes(b"abc") and path, "model.bad_file", "no torch checkpoint"),
        (lambda path: path.mkdir() or path, "model.not_found", "no checkpoint in"),
    ],
)
def test_what_cannot_be_converted(tmp_path, capsys, make, code, words):
    assert run(make(tmp_path / "x.ckpt"), "--out", tmp_path / "out") == 3
    printed = capsys.readouterr()
    told = printed.err
    assert printed.out == ""
    assert f"[{code}]" in told
    assert words in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_what_is_there_stays(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("dear")
    assert run(TINY, "--out", tmp_path / "out") == 2
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    assert run(TINY, "--out", tmp_path / "out") == 0  # an empty folder may be filled


def test_a_name_that_no_card_may_have(tmp_path, capsys):
    assert run(TINY, "--out", tmp_path / "out", "--name", "../evil") == 3
    assert "[model.bad_card]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def stop(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rechka.export.convert._card", stop)
    assert run(TINY, "--out", tmp_path / "out") == 130
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full(tmp_path, monkeypatch, capsys):
    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rechka.export.convert._save_weights", full)
    assert run(TINY, "--out", tmp_path / "out") == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
