"""GigaAM in torch against the golden vectors of the reference, alone and in batches."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.numpy")

from rechka.errors import BadModelFile  # noqa: E402
from rechka.hub.checkpoints import TorchFile  # noqa: E402
from rechka.nn.gigaam import GigaAm, load_gigaam  # noqa: E402
from rechka.nn.gigaam_config import LETTERS, GigaAmConfig, completed, unprefixed  # noqa: E402

GOLDEN = Path(__file__).parents[1] / "data" / "gigaam"
MODELS = ("v1_ctc", "v2_ctc", "v2_rnnt", "v3_ctc", "v3_e2e_ctc", "v3_e2e_rnnt", "v3_ssl", "emo")
ENCODED, LOGPROBS, FEATURES = 1e-3, 5e-3, 2e-3
"""Tolerances of the golden set."""


def samples(name: str) -> torch.Tensor:
    with wave.open(str(GOLDEN / f"{name}.wav")) as file:
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return torch.from_numpy(data.astype(np.float32) / np.float32(32768))


AUDIO = {wav: samples(wav) for wav in "ab"}


class Case:
    def __init__(self, name: str) -> None:
        self.name = name
        self.published = json.loads((GOLDEN / name / "config.json").read_text("utf-8"))
        self.arrays = safetensors.load_file(GOLDEN / name / "model.safetensors")
        self.config = GigaAmConfig.from_published(self.published)
        self.model = load_gigaam(completed(unprefixed(self.arrays), self.config), self.config)
        with np.load(GOLDEN / name / "expected.npz") as arrays:
            self.expected = dict(arrays)
        self.cases = json.loads((GOLDEN / name / "expected.json").read_text("utf-8"))["cases"]


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    return Case(request.param)


def together() -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(AUDIO["a"]), len(AUDIO["b"])])
    return torch.nn.utils.rnn.pad_sequence(list(AUDIO.values()), batch_first=True), lengths


@torch.no_grad()
def test_features(case):
    with np.load(GOLDEN / "features.npz") as arrays:
        golden = dict(arrays)
    key = "v2" if case.config.center else "v3_bf16"
    features, counts = case.model.preprocessor(*together())
    for row, count, wav in zip(features, counts, "ab", strict=True):
        wanted = golden[f"{key}.{wav}"]
        assert row[:, :count].shape == wanted.shape
        assert np.abs(row[:, :count].numpy() - wanted).max() < FEATURES


@torch.no_grad()
def test_frames_alone_and_in_a_batch(case):
    """Every item of a batch gets its single result: what the reference's v1 and v2 do not give, ours does."""
    model = case.model
    features, counts = model.preprocessor(*together())
    encoded, lengths = model.encoder(features, counts)
    for index, (wav, audio) in enumerate(AUDIO.items()):
        alone, _ = model.encoder(*model.preprocessor(audio[None], torch.tensor([len(audio)])))
        wanted = case.expected[f"{wav}.encoded"].T
        assert alone[0].shape == wanted.shape
        assert lengths[index] == len(wanted)
        assert np.abs(alone[0].numpy() - wanted).max() < ENCODED
        assert (encoded[index, : lengths[index]] - alone[0]).abs().max() < 1e-4
    if not case.config.center:
        wanted = case.expected["batch.a.encoded_valid"].T
        assert np.abs(encoded[0, : lengths[0]].numpy() - wanted).max() < ENCODED


@torch.no_grad()
def test_heads(case):
    out, lengths = case.model(*together())
    for index, wav in enumerate("ab"):
        if case.config.task == "ctc":
            found = out[index, : lengths[index]].numpy()
            assert np.abs(found - case.expected[f"{wav}.log_probs"]).max() < LOGPROBS
            assert collapsed(found) == case.cases[wav]["token_ids"]
        elif case.config.task == "emo":
            wanted = case.cases[wav]["probs"]
            assert dict(zip(case.config.labels, out[index].exp().tolist(), strict=True)) == pytest.approx(
                wanted, abs=1e-4
            )
            assert (out[index] - case.model(AUDIO[wav][None])[0][0]).abs().max() < 1e-4


def collapsed(logprobs: np.ndarray) -> list[int]:
    best = logprobs.argmax(axis=1)
    return [
        int(t) for t, before in zip(best, [-1, *best[:-1]], strict=True) if t != before and t != logprobs.shape[1] - 1
    ]


@torch.no_grad()
def test_joint_rows(case):
    """The search of the reference step by step: every row of the joint network in the order of its calls."""
    if case.config.task != "rnnt":
        pytest.skip("has no joint network")
    head, blank = case.model.head, case.config.num_classes - 1
    for wav, audio in AUDIO.items():
        rows, tokens, frames = [], [], []
        predicted, state = head.decoder(torch.tensor([[blank]]))
        for index, frame in enumerate(case.model(audio[None])[0][0]):
            for _ in range(case.config.max_symbols):
                rows.append(head.joint(frame[None, None], predicted)[0, 0, 0])
                token = int(rows[-1].argmax())
                if token == blank:
                    break
                tokens.append(token)
                frames.append(index)
                predicted, state = head.decoder(torch.tensor([[token]]), state)
        assert tokens == case.cases[wav]["token_ids"]
        assert frames == case.cases[wav]["token_frames"]
        wanted = case.expected[f"{wav}.joint_rows"]
        assert np.abs(torch.stack(rows).numpy() - wanted).max() < LOGPROBS


@torch.no_grad()
def test_short_and_padded_items():
    """An item of one sample, of one window, and a long one share a batch; each gets what it gets alone."""
    for name in ("v1_ctc", "v3_ctc"):
        model = Case(name).model
        items = [AUDIO["b"][:n] for n in (1, 320, 321, 4000)] + [AUDIO["b"]]
        lengths = torch.tensor([len(item) for item in items])
        out, counts = model(torch.nn.utils.rnn.pad_sequence(items, batch_first=True), lengths)
        for item, row, count in zip(items, out, counts, strict=True):
            alone = model(item[None])[0][0]
            assert len(alone) == count
            assert (row[:count] - alone).abs().max() < 1e-4


@torch.no_grad()
def test_the_published_checkpoint_layout():
    """16-bit encoder and front end, 32-bit head, read without torch; then the expected tokens."""
    with TorchFile(GOLDEN / "tiny_v3_ctc.ckpt") as file:
        config = GigaAmConfig.from_published(file.section("cfg"))
        arrays = file.read(file.tensors("state_dict"))
    model = load_gigaam(completed(unprefixed(arrays), config), config)
    expected = json.loads((GOLDEN / "tiny_v3_ctc.expected.json").read_text("utf-8"))
    for wav, audio in AUDIO.items():
        found = model(audio[None])[0][0].numpy()
        assert collapsed(found) == expected[wav]["token_ids"]
        assert float(found.sum()) == pytest.approx(expected[wav]["log_probs_sum"], rel=1e-5)


def test_the_configuration_is_told_from_the_weights(case):
    shapes = {name: array.shape for name, array in case.arrays.items()}
    told = GigaAmConfig.from_weights(shapes, name=case.config.name, n_heads=4)
    unknown = {"vocabulary"} if case.config.vocabulary != told.vocabulary else set()
    for key, value in case.config.to_dict().items():
        assert key in unknown or told.to_dict()[key] == value, key
    assert told.vocabulary in (None, tuple(LETTERS))


def test_layouts_of_hugging_face_and_of_others():
    case = Case("v2_ctc")
    wrapped = {f"model.{name}": array for name, array in case.arrays.items() if "num_batches" not in name}
    wrapped["model.encoder.pos_enc.pe"] = np.zeros((3, 3), np.float32)
    wrapped["loss.weight"] = np.zeros(3, np.float32)
    config = GigaAmConfig.from_published({"cfg": {"model": {"cfg": case.published}}})
    assert config == case.config
    found = completed(unprefixed(wrapped), config)
    assert {name: array.shape for name, array in found.items()} == {n: a.shape for n, a in case.arrays.items()}
    emotion = Case("emo")
    renamed = {name.replace("head.", "head.0."): array for name, array in emotion.arrays.items()}
    assert set(completed(renamed, emotion.config)) == set(emotion.arrays)


PUBLISHED = {
    "v1_ctc": (242_047_522, {"attention": "rel_pos", "subsampling": "conv2d", "subs_kernel": 3, "conv_kernel": 31}),
    "v2_ctc": (232_585_762, {"subsampling": "conv2d", "subs_kernel": 3, "conv_kernel": 31}),
    "v2_rnnt": (233_751_970, {"task": "rnnt", "subsampling": "conv2d", "subs_kernel": 3, "conv_kernel": 31}),
    "v3_ctc": (220_707_874, {}),
    "v3_e2e_rnnt": (222_509_313, {"task": "rnnt", "num_classes": 1025, "vocabulary": None}),
    "emo": (242_024_452, {"task": "emo", "num_classes": 4, "attention": "rel_pos", "vocabulary": None}),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    """The number of parameters that the real models have."""
    count, numbers = PUBLISHED[name]
    if "v3" not in name:
        old = {"subsampling": "conv2d", "subs_kernel": 3, "conv_kernel": 31, "conv_norm": "batch_norm"}
        numbers = {**old, "n_fft": 400, "center": True, **numbers}
    with torch.device("meta"):
        model = GigaAm(GigaAmConfig(**numbers))
    assert sum(value.numel() for value in model.parameters()) == count


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": {"_target_": "os.system"}}, "encoder system, which is not GigaAM's"),
        ({"encoder": None}, "no section 'encoder'"),
        ({"encoder": {"n_layers": 10**9}}, "n_layers must be a whole number from 1 to 64"),
        ({"encoder": {"d_model": "24; rm -rf"}}, "d_model must be a whole number"),
        ({"encoder": {"d_model": 24, "n_heads": 5}}, "cannot be shared by 5 heads"),
        ({"encoder": {"self_attention_model": "full"}}, "attention must be one of"),
        ({"encoder": {"subsampling_factor": 8}}, "subsampling_factor = 4"),
        ({"preprocessor": {"sample_rate": 8000}}, "sample_rate = 16000"),
        ({"head": {"_target_": "evil.Head"}}, "evil.Head"),
        ({"decoding": {"vocabulary": ["a"]}}, "34 classes, and there are 1 symbols and a blank"),
        ({"decoding": {"vocabulary": [1, 2]}}, "no list of symbols"),
    ],
)
def test_configurations_that_make_no_model(change, words):
    published = json.loads((GOLDEN / "v3_ctc" / "config.json").read_text("utf-8"))
    with pytest.raises(BadModelFile, match=words):
        GigaAmConfig.from_published({**published, **change})


def test_weights_that_do_not_fit():
    case = Case("v3_ctc")
    with pytest.raises(BadModelFile, match=r"lacks encoder\.layers\.1\.norm_out\.weight"):
        load_gigaam({k: v for k, v in case.arrays.items() if k != "encoder.layers.1.norm_out.weight"}, case.config)
    with pytest.raises(BadModelFile, match="not GigaAM's"):
        GigaAmConfig.from_weights({"weight": (3,)})
