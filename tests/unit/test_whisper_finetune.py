"""Whisper fine-tuning: what the decoder sees and learns, windows, weights that move, folders that are written."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
pytest.importorskip("ctranslate2")
pytest.importorskip("tokenizers")
pytest.importorskip("safetensors")

import torch

from rechka.errors import BadModelFile, DataError, ModelNotFound, UsageError
from rechka.features.whisper import WhisperMel
from rechka.testing.whisper import write_checkpoint
from rechka.train.finetune.feed import Clip
from rechka.train.whisper import WhisperConfig, find_checkpoint
from rechka.train.whisper.checkpoint import generation_for
from rechka.train.whisper.learner import WhisperLearner, open_whisper
from rechka.train.whisper.windows import MOST_BEFORE, Window, WindowFeed, batched, packed

ROOT = Path(__file__).parents[2]
RATE = 16000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny", width=16, layers=1, heads=2)


def config(folder: Path, **more: Any) -> WhisperConfig:
    raw = {"model": str(folder), "data": {"train": ["x.jsonl"]}, "optim": {"patience": 0}, "wave": {"clean": 1.0}}
    return WhisperConfig.from_dict({**raw, **more})


@pytest.fixture(scope="module")
def learner(folder: Path) -> WhisperLearner:
    return open_whisper(folder, config(folder))


def clip(learner: WhisperLearner, text: str, seconds: float = 1.0) -> Clip:
    return Clip(np.full(round(seconds * RATE), 0.1, np.float32), tuple(learner.targets.encode(text)), text)


def feed(learner: WhisperLearner, settings: WhisperConfig) -> Any:
    """A feed without sources: only what it makes of windows."""
    found = WindowFeed.__new__(WindowFeed)
    found._config, found._learner, found._noises = settings, learner, []
    return found


# What the decoder sees and learns ---------------------------------------------------------------------------------


def test_tokens_without_times(learner: WhisperLearner, folder: Path) -> None:
    special = learner.codec.special
    clips = (clip(learner, "раз"), clip(learner, "два"))
    window = Window(tuple((one, True) for one in clips), ())
    ids = feed(learner, config(folder))._tokens(window, None, False)
    begin = [special.start, special.languages["ru"], special.transcribe, special.no_stamps]
    assert ids == [*begin, *clips[0].ids, *clips[1].ids, special.end]
    assert ids.count(special.start) == 1


def test_tokens_with_times_and_prompt(learner: WhisperLearner, folder: Path) -> None:
    special = learner.codec.special
    clips = (clip(learner, "раз"), clip(learner, "два"))
    before = tuple(learner.codec.encode(" три"))
    window = Window(tuple((one, True) for one in clips), before)
    ids = feed(learner, config(folder))._tokens(window, [(0, 16000), (24000, 480000)], True)
    head = [special.previous, *before, special.start, special.languages["ru"], special.transcribe]
    stamps = [special.stamp(place) for place in (0, 50, 75, 1500)]
    assert ids == [*head, stamps[0], *clips[0].ids, stamps[1], stamps[2], *clips[1].ids, stamps[3], special.end]


def test_a_prompt_never_overfills_the_decoder(learner: WhisperLearner, folder: Path) -> None:
    one = Clip(np.zeros(RATE, np.float32), (5,) * 222, "x")
    ids = feed(learner, config(folder))._tokens(Window(((one, True),), (7,) * 400), [(0, RATE)], True)
    assert len(ids) - 1 <= 448
    assert ids.count(7) == min(MOST_BEFORE, 448 - 228)


def test_the_loss_is_of_what_stands_behind_the_start(learner: WhisperLearner) -> None:
    special = learner.codec.special
    features = torch.zeros(1, 3000, 80)
    body = [*learner.prompt(stamps=False), *learner.targets.encode("раз"), special.end]
    with torch.no_grad():
        alone = float(learner.losses(features, torch.tensor([0]), [body])[0])
        padded = learner.losses(
            features.expand(2, -1, -1), torch.tensor([0, 0]), [body, [*body[:-1], 9, 9, 9, special.end]]
        )
        prompt = [special.previous, 11, 12, *body]
        with_prompt = float(learner.losses(features, torch.tensor([0]), [prompt])[0])
        output = learner.module.model(
            input_features=features.transpose(1, 2), decoder_input_ids=torch.tensor([prompt[:-1]])
        )
        log_probs = output.logits.log_softmax(-1)[0]
        expected = -sum(float(log_probs[i - 1, prompt[i]]) for i in range(4, len(prompt)))
    assert alone == pytest.approx(float(padded[0]), rel=1e-5)  # padding is not learned, nor does it disturb
    assert with_prompt == pytest.approx(expected, rel=1e-4)


def test_texts_keep_case_and_marks_and_lose_special_tokens(learner: WhisperLearner) -> None:
    assert learner.targets.decode(learner.targets.encode("  Привет,   как дела? ")) == "Привет, как дела?"
    assert learner.targets.encode("раз")[0] == learner.codec.encode(" раз")[0]
    assert learner.targets.encode("<|endoftext|>раз <|ru|>") == [
        one for one in learner.codec.encode(" <|endoftext|>раз <|ru|>") if one < learner.codec.special.end
    ]
    assert learner.targets.encode("  ") == []
    with pytest.raises(DataError, match="a window holds 222"):
        learner.targets.encode("ъ " * 300)


def test_features_are_those_of_inference(learner: WhisperLearner) -> None:
    rng = np.random.default_rng(0)
    rows = np.zeros((3, 480000), np.float32)
    sizes = (9000, 300000, 480000)
    for row, size in zip(rows, sizes, strict=True):
        row[:size] = 0.1 * rng.standard_normal(size)
    for group in ([0], [0, 1], [0, 1, 2]):
        found, counts = learner.features(torch.from_numpy(rows[group]), torch.tensor([sizes[i] for i in group]))
        for place, i in enumerate(group):
            np.testing.assert_allclose(found[place].numpy().T, WhisperMel(80)(rows[i]), atol=2e-4)
            assert counts[place] == -(-sizes[i] // 160)


def test_the_search_is_that_of_transformers(learner: WhisperLearner) -> None:
    from transformers import GenerationConfig

    model = learner.module.model.eval()
    audio = torch.from_numpy(0.1 * np.random.default_rng(3).standard_normal((2, 480000)).astype("f4"))
    features, _ = learner.features(audio, torch.tensor([480000, 480000]))
    limited = learner.with_module(learner.module)
    limited.generation = {**learner.generation, "max_length": 16}
    with torch.no_grad():
        found = limited.search(features)
    banned = [token for token in limited._never if token != learner.codec.special.no_stamps]
    settings = GenerationConfig.from_dict({**limited.generation, "suppress_tokens": sorted({*banned})})
    reference = model.generate(
        input_features=features.transpose(1, 2), generation_config=settings, return_timestamps=False,
        attention_mask=torch.ones(2, 3000),
    )  # fmt: skip
    for mine, theirs in zip(found, reference.tolist(), strict=True):
        text = [token for token in theirs if token < learner.codec.special.end]
        assert len(mine) >= 8
        assert mine == text[: len(mine)]  # transformers does not count the prompt in max_length


# Windows ----------------------------------------------------------------------------------------------------------


def test_windows_are_filled_and_hold_every_recording_once(learner: WhisperLearner, folder: Path) -> None:
    rng = np.random.default_rng(1)
    members = [(clip(learner, "раз два", float(s)), i % 2 == 0) for i, s in enumerate(rng.uniform(0.5, 29.9, 200))]
    options = config(folder, whisper={"join": 0.8}).whisper
    windows = packed(members, options, np.random.default_rng(2))
    assert [member for window in windows for member in window.members] == members
    for before, window in pairwise(windows):
        assert window.before == tuple(one for held, _ in before.members for one in held.ids)
        pauses = options.pause_s[1] * (len(window.members) - 1)
        assert sum(len(one.samples) for one, _ in window.members) / RATE + pauses <= 30.0
        assert window.num_tokens <= 224
    assert any(len(window.members) > 1 for window in windows)
    alone = packed(members, config(folder, whisper={"join": 0.0}).whisper, np.random.default_rng(2))
    assert len(alone) == len(members)
    batches = batched(windows, 8, np.random.default_rng(3))
    assert sorted(map(id, (w for batch in batches for w in batch))) == sorted(map(id, windows))
    assert all(len(batch) == 8 for batch in batches[:-1])


def test_times_lie_where_the_recordings_are(learner: WhisperLearner, folder: Path) -> None:
    """Also when the window is played faster; samples are 0.1 in recordings, 0 between them."""
    special = learner.codec.special
    for speed in (0.0, 0.1):
        settings = config(
            folder, whisper={"stamps": 1.0, "pause_s": [0.5, 1.0]}, wave={"clean": 1.0, "speed": speed}
        )  # fmt: skip
        window = Window(tuple((clip(learner, "раз", s), True) for s in (2.0, 3.0, 1.5)), ())
        audio, ids = feed(learner, settings)._laid(window, np.random.default_rng(5))
        stamps = [special.position(one) * 320 for one in ids if special.is_stamp(one)]
        loud = np.abs(audio) > 0.05
        edges = np.flatnonzero(np.diff(np.r_[False, loud, False].astype(int)))
        assert len(stamps) == len(edges) == 6
        assert np.abs(np.array(stamps) - edges).max() <= 200 + 40 * (
            speed > 0
        )  # half a stamp, and the filter's ringing


def test_half_of_the_windows_have_times(learner: WhisperLearner, folder: Path) -> None:
    maker, window = feed(learner, config(folder)), Window(((clip(learner, "раз", 0.1), True),), ())
    rows = [maker._laid(window, np.random.default_rng(i))[1] for i in range(200)]
    assert 70 <= sum(any(learner.codec.special.is_stamp(one) for one in row) for row in rows) <= 130


# Weights ----------------------------------------------------------------------------------------------------------


def test_adapters_are_all_that_is_kept_and_the_copy_shares_the_rest(folder: Path) -> None:
    adapted = open_whisper(folder, config(folder, whisper={"lora": 4}))
    names = list(adapted.module.state_dict())
    assert names
    assert all("lora_" in name and ("q_proj" in name or "v_proj" in name) for name in names)
    twin = copy.deepcopy(adapted.module)
    pairs = zip(adapted.module.model.named_parameters(), twin.model.named_parameters(), strict=True)
    assert {name for (name, a), (_, b) in pairs if a is not b} == set(names)
    with pytest.raises(RuntimeError, match="other parameters"):
        twin.load_state_dict({})


def test_merging_gives_what_the_adapted_model_computes(folder: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    adapted = open_whisper(folder, config(folder, whisper={"lora": 4}))
    with torch.no_grad():
        for name, value in adapted.module.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.3)
    given = {"input_features": torch.randn(1, 80, 3000), "decoder_input_ids": torch.tensor([[1, 2, 3]])}
    plain = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        base = plain(**given).logits
        expected = adapted.module.model.eval()(**given).logits
        weights = adapted.merged()
        plain.load_state_dict(weights, strict=False)
        found = plain(**given).logits
    assert "proj_out.weight" not in weights
    assert not torch.allclose(base, expected, atol=0.1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_sinusoids_stay_and_layers_have_their_depth(learner: WhisperLearner) -> None:
    assert "model.encoder.embed_positions.weight" not in learner.module.names
    depths = {name: learner.depth(name) for name in learner.module.names}
    assert depths["model.encoder.conv1.weight"] == 0
    assert depths["model.encoder.layers.0.fc1.weight"] == 1
    assert depths["model.decoder.layers.0.fc1.weight"] == 2


def test_checkpointing_changes_memory_and_no_gradient(folder: Path) -> None:
    """Also for adapters, whose base has no gradients, and under bf16."""
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        adapted = open_whisper(folder, config(folder, whisper={"lora": 2, "checkpointing": checkpointing}))
        adapted.module.train()
        with torch.no_grad():
            for name, value in adapted.module.named_parameters():
                if "lora_B" in name:
                    value.fill_(0.1)
        torch.manual_seed(2)
        ids = [*adapted.prompt(stamps=False), *adapted.targets.encode("раз"), adapted.codec.special.end]
        with torch.autocast("cpu", torch.bfloat16):
            adapted.losses(torch.ones(1, 3000, 80), torch.tensor([3000]), [ids]).sum().backward()
        found.append({name: value.grad for name, value in adapted.module.named_parameters()})
    assert any(bool(grad.abs().sum() > 0) for grad in found[0].values())
    for name, grad in found[0].items():
        torch.testing.assert_close(grad, found[1][name])


# Settings and folders ---------------------------------------------------------------------------------------------


def test_rates_follow_the_size_and_the_method(folder: Path) -> None:
    assert config(folder).optim.rate == 3.75e-5
    assert config(folder, whisper={"lora": 8}).optim.rate == 5e-4
    assert config(folder, optim={"rate": 1e-3, "patience": 0}).optim.rate == 1e-3


def test_a_file_makes_the_same_run(folder: Path, tmp_path: Path) -> None:
    made = config(folder, whisper={"lora": 8, "pause_s": [0.2, 0.4]}, int8=True)
    (tmp_path / "run.toml").write_text(made.to_toml(), "utf-8")
    assert WhisperConfig.load(tmp_path / "run.toml") == made


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"whisper": {"lota": 1}}, "no key 'lota'"),
        ({"whisper": {"stamps": 1.5}}, "are shares"),
        ({"whisper": {"task": "sing"}}, "transcribe or translate"),
        ({"whisper": {"pause_s": [2.0, 1.0]}}, "pause_s"),
        ({"whisper": {"lora": "big"}}, "whole number"),
        ({"data": {"train": ["x"], "max_s": 40.0}, "optim": {"batch_seconds": 60, "patience": 0}}, "at most 30"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(folder: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(folder, **more)


def test_what_is_found(folder: Path, tmp_path: Path) -> None:
    assert find_checkpoint(str(folder)) == folder
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "transformers").symlink_to(folder)
    assert find_checkpoint(str(tmp_path / "run")) == tmp_path / "run" / "transformers"
    assert find_checkpoint("t-one") is None
    assert find_checkpoint("") is None
    with pytest.raises(ModelNotFound, match="cannot be trained"):
        find_checkpoint("whisper-small")


@pytest.mark.parametrize(
    ("whisper", "error", "message"),
    [
        ({"language": "xx"}, UsageError, "no language 'xx'"),
        ({"lora": 2, "lora_layers": ["r_proj"]}, UsageError, "r_proj"),
    ],
)
def test_what_a_model_cannot(folder: Path, whisper: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_whisper(folder, config(folder, whisper=whisper))


def test_a_checkpoint_without_weights_is_told(folder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModelFile, match=r"lacks weights: model.decoder.layers.0.fc1.weight"):
        open_whisper(tmp_path, config(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(BadModelFile, match="no checkpoint of Whisper"):
        open_whisper(tmp_path, config(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFound, match="tokenizer"):
        open_whisper(tmp_path, config(tmp_path))


def test_old_settings_of_generation_are_put_right(learner: WhisperLearner) -> None:
    old = {"forced_decoder_ids": [[1, 50259]], "max_length": 225}
    found = generation_for(old, {"suppress_tokens": [1, 2]}, learner.codec, "uk", "transcribe")
    assert "forced_decoder_ids" not in found
    assert (found["language"], found["task"], found["suppress_tokens"]) == ("uk", "transcribe", [1, 2])
    assert found["lang_to_id"]["<|uk|>"] == learner.codec.special.languages["uk"]
    assert found["max_length"] == 225
    json.dumps(found)


# The example ------------------------------------------------------------------------------------------------------


def test_the_gradio_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a stand-in for Gradio, which is no dependency: the function behind the page hears a recording."""
    import soundfile

    from rechka.testing import say

    class Told(Exception):
        pass

    stand_in = types.SimpleNamespace(
        Interface=lambda **given: given, Audio=lambda **given: given, Textbox=lambda **given: given, Error=Told
    )
    monkeypatch.setitem(sys.modules, "gradio", stand_in)  # type: ignore[arg-type]
    spec = importlib.util.spec_from_file_location("gradio_demo", ROOT / "examples/gradio_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.build("toy")
    assert page["inputs"]["sources"] == ["microphone", "upload"]
    soundfile.write(tmp_path / "a.wav", say("добрый день", before_s=1, after_s=1), 8000)
    assert page["fn"](str(tmp_path / "a.wav")) == "добрый день"
    assert page["fn"](None) == ""
    with pytest.raises(Told):
        page["fn"](str(tmp_path / "missing.wav"))
