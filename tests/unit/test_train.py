"""Training: features, augmentation, sampling, the store, and a run that survives being killed."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="training needs torch")
from rechka.errors import BadModelFile, DataError  # noqa: E402
from rechka.features import bands  # noqa: E402
from rechka.hub import locking  # noqa: E402
from rechka.testing.waiting import wait_until  # noqa: E402
from rechka.train import augment  # noqa: E402
from rechka.train import store as train_store  # noqa: E402
from rechka.train.augment import AugmentOptions  # noqa: E402
from rechka.train.config import DataSet, Optimisation, TrainConfig  # noqa: E402
from rechka.train.loop import BLANK, CHECKPOINT, encode, greedy, learning_rate, load_weights, train  # noqa: E402
from rechka.train.sampler import Position, Sampler, Source  # noqa: E402
from rechka.train.store import Store, build, cepstra_to_bands  # noqa: E402
from rechka.train.text import held_out  # noqa: E402
from rechka.types import F32  # noqa: E402


def manifest(folder: Path, texts: list[str], seed: int = 0) -> Path:
    """Noise bursts with texts: enough to run every line of the trainer."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, text in enumerate(texts):
        samples = rng.normal(0, 0.1, 800 * (len(text) + 4)).astype(np.float32)
        soundfile.write(folder / f"{number}.wav", samples, 8000)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": text, "speaker": f"s{number % 3}"}))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


TEXTS = [
    t for t in ("да нет", "один два", "три", "алло", "пять шесть", "семь", "ноль", "восемь", "сто") if not held_out(t)
]


def test_finish_equals_the_streaming_front_end() -> None:
    rng = np.random.default_rng(1)
    batch = rng.normal(12, 3, (2, 333, bands.BANDS)).astype(np.float32)
    whole = augment.finish(batch)
    start = bands.BandState.initial()
    for row, expected in zip(batch, whole, strict=True):
        streamed, _, _ = bands.remove_mean(row, start.total, start.weight)
        np.testing.assert_allclose(streamed, expected, atol=2e-5)


def test_augmentation_is_a_function_of_its_seed_and_changes_sound() -> None:
    x = np.random.default_rng(0).normal(14, 2, (200, bands.BANDS)).astype(np.float32)
    options = AugmentOptions()
    one, _ = augment.utterance(x, np.random.default_rng(5), options, None)
    two, _ = augment.utterance(x, np.random.default_rng(5), options, None)
    other, _ = augment.utterance(x, np.random.default_rng(6), options, None)
    np.testing.assert_array_equal(one, two)
    assert other.shape != one.shape or not np.allclose(other, one)
    assert np.isfinite(one).all()
    assert one.min() >= np.log(bands.FLOOR) - 1e-3


def test_tempo_and_warp_keep_a_constant() -> None:
    x = np.full((100, bands.BANDS), 7.0, np.float32)
    assert len(augment.resample_time(x, 1.25)) == 80
    for frames in range(2, 300):
        np.testing.assert_allclose(augment.resample_time(x[:1].repeat(frames, axis=0), 0.87 + frames * 1e-3), 7.0)
    np.testing.assert_allclose(augment.warp_bands(x, 1.1), 7.0, rtol=1e-6)


def test_cepstra_come_back_as_bands() -> None:
    rng = np.random.default_rng(0)
    k = np.arange(13)
    basis = np.sqrt(2 / 15) * np.cos(np.pi * k[:, None] * (np.arange(15) + 0.5) / 15)
    basis[0] *= np.sqrt(0.5)
    smooth = (rng.normal(size=(9, 13)) @ basis).astype(np.float32)
    cepstra = (smooth @ basis.T) * (1 + 11 * np.sin(k * np.pi / 22))
    np.testing.assert_allclose(cepstra_to_bands(cepstra.astype(np.float32)), smooth, atol=1e-4)


def test_sampler_resumes_where_it_stood_and_repeats_nothing_within_an_epoch() -> None:
    sources = [Source("a", [100] * 50, 1.0), Source("b", [300] * 20, 0.5)]
    whole = Sampler(sources, 1000, 2, seed=3)
    groups = [whole.next_group() for _ in range(120)]
    first = Sampler(sources, 1000, 2, seed=3)
    for _ in range(47):
        first.next_group()
    position = Position(**json.loads(json.dumps(first.position.to_dict())))
    second = Sampler(sources, 1000, 2, seed=3, position=position)
    assert [second.next_group() for _ in range(73)] == groups[47:]
    assert all(len(group) == 2 for group in groups)
    seen = [member for group in groups[:3] for batch in group for member in batch if member[0] == "b"]
    assert len(seen) == len(set(seen))


def test_sampler_keeps_batches_within_their_budget_and_shares() -> None:
    sources = [Source("short", [100] * 500, 0.25), Source("long", [400] * 500, 0.75)]
    sampler = Sampler(sources, 2000, 1, seed=1)
    frames = {"short": 0, "long": 0}
    for _ in range(400):
        (batch,) = sampler.next_group()
        lengths = [100 if name == "short" else 400 for name, _ in batch]
        assert max(lengths) * len(lengths) <= 2000
        for name, _ in batch:
            frames[name] += 100 if name == "short" else 400
    assert frames["long"] / sum(frames.values()) == pytest.approx(0.75, abs=0.05)


def test_store_grows_survives_a_kill_and_leaves_out_held_out_sentences(tmp_path: Path) -> None:
    kept = "привет вам"
    test_only = next(text for text in (f"фраза {letter}" for letter in "абвгдежзиклмнопрст") if held_out(text))
    path = manifest(tmp_path / "data", [*TEXTS, test_only, "цифра 5"])
    store = build([path], tmp_path / "store")
    assert [item.text for item in store.items] == TEXTS
    with open(tmp_path / "store" / "index.jsonl", "ab") as file:
        file.write(b'{"offset": 12, "fra')
    with open(tmp_path / "store" / "bands.f16", "ab") as file:
        file.write(b"xyz")
    again = build([path, manifest(tmp_path / "more", [kept], seed=9)], tmp_path / "store")
    assert [item.text for item in again.items][: len(TEXTS)] == TEXTS
    np.testing.assert_array_equal(again.read(again.items[1]), store.read(store.items[1]))
    assert build([path], tmp_path / "all", keep_held_out=True).items[-1].text == test_only


@pytest.mark.parametrize(("samples", "text"), [(0, ""), (79, TEXTS[1]), (159, "")])
def test_a_recording_too_short_to_be_changed_is_left_out(tmp_path: Path, samples: int, text: str) -> None:
    path = manifest(tmp_path, TEXTS[:1])
    soundfile.write(tmp_path / "short.wav", np.zeros(samples, np.float32), 8000)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"audio_filepath": "short.wav", "text": text}) + "\n")
    store = build([path], tmp_path / "store", keep_held_out=True)
    for item in store.items:
        changed, _ = augment.utterance(store.read(item), np.random.default_rng(2), AugmentOptions(clean=0.0), None)
        assert np.isfinite(changed).all()
    assert [item.text for item in store.items] == TEXTS[:1]


def test_recordings_of_the_same_name_beside_two_manifests_are_two(tmp_path: Path) -> None:
    one, other = manifest(tmp_path / "one", TEXTS[:2]), manifest(tmp_path / "other", TEXTS[2:4], seed=9)
    store = build([one, other], tmp_path / "store")
    assert [item.text for item in store.items] == TEXTS[:4]
    assert len({item.key for item in store.items}) == 4
    for _ in range(2):  # and once is enough, also for a recording that is listed twice
        assert build([one, other, one], tmp_path / "store").items == store.items


def test_two_trainings_may_bring_one_store_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one begins while the first is at work; what one writes the other must not count as its own."""
    path = manifest(tmp_path / "data", TEXTS)
    alone = build([path], tmp_path / "alone")
    second = threading.Thread(target=build, args=([path], tmp_path / "store"))
    waiting, working = threading.Event(), threading.Event()
    read, sleep = train_store.audio_to_bands, time.sleep

    def slowly(name: Path) -> F32:
        if threading.current_thread() is second:
            working.set()
        elif second.ident is None:
            second.start()
            wait_until(lambda: waiting.is_set() or working.is_set())
        return read(name)

    def waited(seconds: float) -> None:
        waiting.set()
        sleep(seconds)

    monkeypatch.setattr(train_store, "audio_to_bands", slowly)
    monkeypatch.setattr(locking.time, "sleep", waited)
    build([path], tmp_path / "store")
    second.join()
    found = Store(tmp_path / "store")
    assert [item.text for item in found.items] == TEXTS
    for item, before in zip(found.items, alone.items, strict=True):
        np.testing.assert_array_equal(found.read(item), alone.read(before))


def test_a_store_can_be_opened_while_another_training_adds_to_it(tmp_path: Path) -> None:
    store = build([manifest(tmp_path / "data", TEXTS)], tmp_path / "store")
    with open(tmp_path / "store" / "bands.f16", "ab") as file:
        file.write(b"xyz")  # of a recording that is not in the index yet
    found = Store(tmp_path / "store")
    np.testing.assert_array_equal(found.read(found.items[-1]), store.read(store.items[-1]))


def test_store_refuses_records_without_text(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "a.wav"}\n', "utf-8")
    with pytest.raises(DataError, match=r"m\.jsonl:1"):
        build([path], tmp_path / "store")
    with pytest.raises(DataError, match="no feature store"):
        Store(tmp_path / "nowhere")


def test_learning_rate_has_three_phases() -> None:
    optim = Optimisation(steps=100, warmup=10, decay_from=60, peak=1.0)
    assert learning_rate(0, optim) == pytest.approx(0.1)
    assert learning_rate(30, optim) == 1.0
    assert learning_rate(80, optim) == pytest.approx(0.5)
    assert learning_rate(100, optim) == 0.0


def test_greedy_collapses_repeats_and_drops_blanks() -> None:
    path = [BLANK, *encode("а"), *encode("а"), BLANK, *encode("а"), *encode("б"), BLANK]
    log_probs = torch.full((len(path), BLANK + 1), -9.0)
    for frame, letter in enumerate(path):
        log_probs[frame, letter] = 0.0
    assert greedy(log_probs, len(path)) == "ааб"


@pytest.fixture
def tiny(tmp_path: Path) -> TrainConfig:
    """A run of a few steps on noise."""
    data = DataSet("data", (str(manifest(tmp_path / "data", TEXTS * 4)),))
    dev = DataSet("dev", (str(manifest(tmp_path / "dev", TEXTS[:2], seed=4)),), held_out=True)
    model = {"dim": 16, "heads": 2, "slow_blocks": 1, "expansion": 2, "channels": [4, 4]}
    optim = Optimisation(steps=6, warmup=2, decay_from=4, batch_seconds=4.0, short_first_steps=1)
    return TrainConfig((data,), (dev,), model, optim, workers=1, eval_every=6, save_every=3)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(tiny: TrainConfig, tmp_path: Path) -> None:
    whole = train(tiny, tmp_path / "whole")
    train(replace(tiny, optim=replace(tiny.optim, steps=3)), tmp_path / "parts")
    parts = train(tiny, tmp_path / "parts")
    _, expected = load_weights(whole)
    _, got = load_weights(parts)
    for name, value in expected.items():
        assert torch.equal(value, got[name]), name
    lines = [json.loads(line) for line in (tmp_path / "parts" / "log.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines if "dev" in line] == [3, 6]
    assert (tmp_path / "parts" / CHECKPOINT).exists()


def test_configuration_errors_name_the_key(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[optim]\nstepz = 3\n", "utf-8")
    with pytest.raises(DataError, match="stepz"):
        TrainConfig.load(path)
    with pytest.raises(DataError, match="cannot read"):
        TrainConfig.load(tmp_path / "absent.toml")


def test_weights_of_another_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"other": torch.zeros(1)}, path)
    with pytest.raises(BadModelFile, match="no checkpoint"):
        load_weights(path)
