"""Fine-tuning's data: texts to ids, configuration, batches that resume anywhere, what is left out and counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch", reason="training needs torch")
from rechka.errors import BadModelFile, DataError, UsageError  # noqa: E402
from rechka.nn.tone_config import VOCABULARY  # noqa: E402
from rechka.train.finetune import DataOptions, DevSet, FinetuneConfig, MaskOptions, Optimisation  # noqa: E402
from rechka.train.finetune.feed import Feed, cut, masked  # noqa: E402
from rechka.train.finetune.learners import Learner  # noqa: E402
from rechka.train.finetune.pieces import PieceEncoder  # noqa: E402
from rechka.train.finetune.survey import read_dev, read_noises, survey  # noqa: E402
from rechka.train.finetune.targets import Targets, repeats  # noqa: E402
from rechka.train.wave import WaveOptions  # noqa: E402

GIGAAM = Path(__file__).parents[1] / "data" / "gigaam"
RATE = 8000


class Ear(Learner):
    """No model: texts and lengths only."""

    sample_rate, family, frame = RATE, "tone", 240

    def __init__(self) -> None:
        super().__init__(torch.nn.Linear(1, 1), None, Targets(VOCABULARY, 34), 1)  # type: ignore[arg-type]

    def laid_out(self, samples: Any, rng: Any) -> Any:
        return samples

    def num_frames(self, samples: int) -> int:
        return samples // 240

    def features(self, audio: Any, lengths: Any) -> Any: ...
    def losses(self, features: Any, counts: Any, labels: Any) -> Any: ...
    def read(self, features: Any, counts: Any) -> Any: ...


def manifest(folder: Path, records: list[tuple[str, float]]) -> str:
    """Recordings of a text and so many seconds, each with a first sample of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (text, seconds) in enumerate(records):
        samples = np.full(round(seconds * RATE), (number + 1) / 1000, np.float32)
        soundfile.write(folder / f"{number}.wav", samples, RATE)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": text}, ensure_ascii=False))
    (folder / "m.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return str(folder / "m.jsonl")


def config(train: str, **data: Any) -> FinetuneConfig:
    options = DataOptions(train=(train,), **{"window_s": 6.0, "shuffle": 5, **data})
    optim = Optimisation(steps=1, batch_seconds=20.0)
    wave = WaveOptions(clean=0.3, noise=0.5, reverb=0.0, telephone=0.0)
    return FinetuneConfig("x", (DevSet("dev", (train,)),), options, optim=optim, wave=wave)


# Texts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Добрый  день!", "добрый день"),
        ("Что-то ещё: «Съёмка»?", "что то ещё съёмка"),
        ("за́мок и замо́к", "замок и замок"),
        ("тѐмно-си\u0300ний", "темно синий"),
        ("и\u0306од", "йод"),
        ("мягкий\u00adперенос", "мягкийперенос"),
        (" - ", ""),
    ],
)
def test_texts_become_what_tone_writes(text: str, expected: str) -> None:
    targets = Targets(VOCABULARY, 34)
    assert targets.normalise(text) == expected
    assert targets.decode(targets.encode(text)) == expected


def test_yo_follows_the_vocabulary() -> None:
    targets = Targets(tuple(" абвгдежзийклмнопрстуфхцчшщъыьэюя"), 33)
    assert targets.decode(targets.encode("Ёлка")) == "елка"


@pytest.mark.parametrize(("text", "letter"), [("дом 5", "digit '5'"), ("слово sms", "letter 's'"), ("київ", "'ї'")])
def test_what_the_model_does_not_write_is_named(text: str, letter: str) -> None:
    with pytest.raises(DataError, match=letter) as caught:
        Targets(VOCABULARY, 34).encode(text)
    assert text in caught.value.message
    assert "as they are said" in caught.value.remedy


def test_repeats_need_a_blank_between() -> None:
    assert repeats([1, 1, 2, 2, 2, 1]) == 3


def test_pieces_cut_words_as_the_library_does() -> None:
    """Ids that sentencepiece 0.2 gives for this model."""
    encoder = PieceEncoder.read(GIGAAM / "v3_e2e_rnnt" / "v3_e2e_rnnt_tokenizer.model")
    targets = Targets(encoder.symbols, len(encoder.symbols), encoder)
    ids = targets.encode("Привет,  как дела?")
    assert [encoder.symbols[i] for i in ids] == [" ", *"Прив", "ет", ",", " ", "ка", "к", " д", *"ела?"]
    assert targets.decode(ids) == "Привет, как дела?"
    with pytest.raises(DataError, match="pieces"):
        targets.encode("日本")


def test_unigram_takes_the_likeliest_cut() -> None:
    scores = {"\u2581": -2.0, "\u2581а": -2.5, "а": -3.0, "б": -3.0, "аб": -3.2, "\u2581аб": -9.0}
    encoder = PieceEncoder(scores, {piece: i for i, piece in enumerate(scores)}, 1)
    assert encoder.encode("аб") == [0, 4]  # -5.2 beats -5.5 and -9
    assert encoder.encode("ая") == [1, None]


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 40, b"{}"):
        (tmp_path / "t.model").write_bytes(content)
        with pytest.raises(BadModelFile, match=r"t\.model"):
            PieceEncoder.read(tmp_path / "t.model")


# Configuration -------------------------------------------------------------------------------------------------------


def test_the_toml_file_says_everything(tmp_path: Path) -> None:
    made = replace(
        config("/data/a.jsonl"), name="mine", wave=WaveOptions(noise_files=("/n/*.wav",), noise_db=(3.0, 4.5)),
        optim=Optimisation(steps=7, freeze=("encoder.*",), rate=1e-3), mask=MaskOptions(bands=3),
    )  # fmt: skip
    (tmp_path / "run.toml").write_text(made.to_toml(), "utf-8")
    assert FinetuneConfig.load(tmp_path / "run.toml") == made


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    source = manifest(tmp_path / "data", [("да", 1.0)])
    text = 'model = "t-one"\n[data]\ntrain = "data/m.jsonl"\n[[dev]]\nname = "d"\nsources = ["hf://a/b"]\n'
    (tmp_path / "run.toml").write_text(text, "utf-8")
    read = FinetuneConfig.load(tmp_path / "run.toml")
    assert (read.model, read.data.train, read.dev[0].sources) == ("t-one", (source,), ("hf://a/b",))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[optim]\nratee = 1", "ratee"),
        ("[optim]\nrate = 'x'", "optim.rate must be a number"),
        ("[optim]\nsteps = 1.5", "optim.steps must be a whole number"),
        ("[wave]\nnoise_db = [1]", "two numbers"),
        ("speed = 1", "'speed'"),
        ("[optim]\nbatch_seconds = 5", "longest recording"),
        ("precision = 'fp8'", "precision is auto"),
        ("[[dev]]\nname = 'd'", "sources"),
        ("[optim]\nema = 1.0", "ema"),
        ("x =", "cannot read"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, line: str, said: str) -> None:
    dev = "" if "[[dev]]" in line else "[[dev]]\nname = 'd'\nsources = ['d']\n"
    top = line if not line.startswith("[") else ""
    rest = line if line.startswith("[") else ""
    text = f"model = 'm'\n{top}\n[data]\ntrain = ['t']\n{dev}{rest}\n"
    (tmp_path / "run.toml").write_text(text, "utf-8")
    with pytest.raises(UsageError, match=said):
        FinetuneConfig.load(tmp_path / "run.toml")


# Batches -------------------------------------------------------------------------------------------------------------

RECORDS = [("да" * (1 + i % 4), 0.5 + 0.13 * (i % 7)) for i in range(23)]


def drawn(feed: Feed, count: int) -> list[Any]:
    batches = [feed.next() for _ in range(count)]
    feed.close()
    return batches


def test_batches_go_on_from_any_position_as_if_never_stopped(tmp_path: Path) -> None:
    run = config(manifest(tmp_path / "a", RECORDS), replay=(manifest(tmp_path / "b", RECORDS[:5]),), replay_share=0.3)
    run = replace(run, optim=replace(run.optim, batch_seconds=3.0), data=replace(run.data, max_s=2.0))
    whole = drawn(Feed(run, Ear(), (), None), 24)
    assert whole[-1].position["train"]["epoch"] > 0
    for stop in (1, 6, 17):
        position = json.loads(json.dumps(whole[stop - 1].position))
        for expected, got in zip(whole[stop:], drawn(Feed(run, Ear(), (), position), 24 - stop), strict=True):
            np.testing.assert_array_equal(expected.audio, got.audio)
            assert (expected.labels, expected.seed, expected.position) == (got.labels, got.seed, got.position)


def test_every_recording_once_a_pass_and_no_batch_above_its_budget(tmp_path: Path) -> None:
    run = config(manifest(tmp_path / "a", RECORDS), max_s=2.0)
    run = replace(run, optim=replace(run.optim, batch_seconds=3.0), wave=WaveOptions(clean=1.0, speed=0.0))
    feed, seen = Feed(run, Ear(), (), None), Counter[int]()
    while sum(seen.values()) < 3 * len(RECORDS):
        batch = feed.next()
        assert max(batch.lengths) * len(batch.lengths) <= 3.0 * RATE + 1
        seen.update(round(float(row[0]) * 1000) for row in batch.audio)
    feed.close()
    assert seen == Counter(dict.fromkeys(range(1, len(RECORDS) + 1), 3))


def test_replay_has_its_share_of_the_audio(tmp_path: Path) -> None:
    run = config(manifest(tmp_path / "a", RECORDS), replay=(manifest(tmp_path / "b", RECORDS[:6]),), replay_share=0.25)
    run = replace(run, wave=WaveOptions(clean=1.0, speed=0.0))
    batches = drawn(Feed(run, Ear(), (), None), 40)
    own, total = (sum(getattr(batch, name) for batch in batches) for name in ("own_seconds", "seconds"))
    assert 1 - own / total == pytest.approx(0.25, abs=0.05)


def test_impossible_labels_and_odd_lengths_are_left_out_and_counted(tmp_path: Path) -> None:
    records = [*RECORDS, ("а" * 30, 0.9), ("абв" * 20, 0.6), ("да", 3.0), ("да", 0.02), ("!", 1.0)]
    run = config(manifest(tmp_path / "a", records), max_s=2.0, max_bad=0.2)
    feed = Feed(run, Ear(), (), None)
    while feed.position["train"]["epoch"] == 0:
        batch = feed.next()
        for length, ids in zip(batch.lengths, batch.labels, strict=True):
            assert length // 240 >= len(ids) + repeats(ids)
    feed.close()
    counts = feed.position["train"]["counts"]
    assert {key: value for key, value in counts.items() if value} == {
        "used": len(RECORDS), "impossible": 2, "too long": 1, "too short": 1, "empty text": 1,
    }  # fmt: skip


def test_damaged_recordings_are_counted(tmp_path: Path) -> None:
    source = manifest(tmp_path / "a", RECORDS)
    (tmp_path / "a" / "3.wav").write_bytes(b"RIFF, but no more")
    feed = Feed(config(source), Ear(), (), None)
    while feed.position["train"]["epoch"] == 0:
        feed.next()
    feed.close()
    assert feed.position["train"]["counts"]["damaged"] == 1


def test_too_many_unusable_recordings_end_the_run(tmp_path: Path) -> None:
    source = manifest(tmp_path / "a", RECORDS * 3 + [("дом 5", 1.0)] * 10)
    with pytest.raises(DataError, match=r"more than 5%: .* text.*digit '5'"):
        drawn(Feed(config(source), Ear(), (), None), 60)
    with pytest.raises(DataError, match=r"10 of 79 texts.*digit '5'"):
        survey(config(source).data, Ear(), whole=False)


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    source = manifest(tmp_path / "a", [("да", 30.0)])
    with pytest.raises(DataError, match="1 too long"):
        Feed(config(source), Ear(), (), None)
    with pytest.raises(DataError, match="nothing to train on"):
        survey(config(source).data, Ear(), whole=True)


def test_survey_adds_up_what_fits(tmp_path: Path) -> None:
    source = manifest(tmp_path / "a", [("да", 1.0), ("нет", 2.0), ("да", 25.0), ("да", 2.0)])
    (tmp_path / "a" / "3.wav").write_bytes(b"no audio")
    assert survey(config(source).data, Ear(), whole=True) == pytest.approx(3.0)
    parts = [{"audio_filepath": "2.wav", "text": "да", "offset": start, "duration": 4.0} for start in (0.0, 8.0)]
    (tmp_path / "a" / "parts.jsonl").write_text("\n".join(map(json.dumps, parts)) + "\n", "utf-8")
    assert survey(config(str(tmp_path / "a" / "parts.jsonl")).data, Ear(), whole=True) == pytest.approx(8.0)


def test_dev_sets_and_noises_are_read(tmp_path: Path) -> None:
    source = manifest(tmp_path / "a", [("да", 2.0), ("нет", 1.0), ("", 1.0)])
    assert [item.text for item in read_dev(DevSet("d", (source,)), Ear(), 1)] == ["нет", "да"]
    with pytest.raises(DataError, match="no readable recording"):
        read_dev(DevSet("d", (manifest(tmp_path / "b", [("", 1.0)]),)), Ear(), 1)
    assert [len(noise) for noise in read_noises([str(tmp_path / "a" / "*.wav")], RATE)] == [16000, 8000, 8000]


def test_masks_are_within_their_limits_and_a_function_of_the_seed() -> None:
    options = MaskOptions(time_masks=3, time_ms=100.0, time_share=0.1, band_masks=1, bands=7)
    hidden = masked([200, 40], 200, (1, 2, 3), options)
    np.testing.assert_array_equal(hidden, masked([200, 40], 200, (1, 2, 3), options))
    assert (hidden != masked([200, 40], 200, (1, 2, 4), options)).any()
    times, bands = hidden.all(axis=2), hidden.all(axis=1)
    assert times[0].sum() <= 3 * 10
    assert times[1, :40].sum() <= 3 * 4
    assert not times[1, 44:].any()
    assert bands.sum(axis=1).max() <= 7
    few = masked([200] * 50, 200, (1,), MaskOptions(time_masks=0, band_masks=1, bands=15), bands=15)
    assert few.shape == (50, 200, 15)
    assert few.all(axis=1).sum(axis=1).max() == 4  # 15 of 64, in a model that has 15
    assert not masked([10], 10, (0,), MaskOptions(time_masks=0, band_masks=0)).any()


def test_cut_keeps_equal_lengths_together() -> None:
    members: Any = [(type("C", (), {"samples": np.zeros(n)})(), True) for n in (100, 500, 110, 490, 105, 510)]
    batches = cut(members, 1600, np.random.default_rng(0))
    assert sorted(sorted(len(clip.samples) for clip, _ in batch) for batch in batches) == [
        [100, 105, 110], [490, 500, 510],
    ]  # fmt: skip
