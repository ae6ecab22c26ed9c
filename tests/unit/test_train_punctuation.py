"""Training of the punctuator: sentences taken apart, no leak, batches, a run that is killed and goes on, export."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from rechka.errors import DataError
from rechka.text.punctuation import MARKS, PausePunctuator
from rechka.train.text import held_out

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
from rechka.models.punctuator import WordPunctuator  # noqa: E402
from rechka.train.punctuation.batches import Noise, Vocabulary, batches, misheard, simulated_pauses  # noqa: E402
from rechka.train.punctuation.export import export, load  # noqa: E402
from rechka.train.punctuation.net import NetOptions, PunctuationNet  # noqa: E402
from rechka.train.punctuation.run import PunctuationConfig, sides, train  # noqa: E402
from rechka.train.punctuation.score import Counts, EndPunctuator, Item, report, rows  # noqa: E402
from rechka.train.punctuation.sentences import Texts, gathered, labelled  # noqa: E402
from rechka.types import Word  # noqa: E402

SMALL = NetOptions(embedding=8, width=16, layers=2, behind=2, look_ahead=1)


@pytest.mark.parametrize(
    ("sentence", "words", "marks", "cases"),
    [
        ("Да, я — Иван!", "да я иван", ",_!", "001"),
        ("«Куда?» — спросил он...", "куда спросил он", "?_…", "100"),
        ("В США тепло; а у нас?!", "в сша тепло а у нас", "__,__?", "120000"),
        ("Ещё раз: так.", "еще раз так", "_,.", "100"),
        ("Кто-то пришёл .", "кто-то пришел", "_.", "10"),
    ],
)
def test_a_sentence_taken_apart(sentence: str, words: str, marks: str, cases: str) -> None:
    found = labelled(sentence)
    assert found is not None
    assert found.words == tuple(words.split())
    assert "".join(MARKS[mark] or "_" for mark in found.marks) == marks
    assert "".join(map(str, found.cases))[1:] == cases[1:]


@pytest.mark.parametrize(
    "sentence", ["без точки", "Без точки", "со строчной.", "ВСЕ КРИЧАТ!", "Слово,слово.", "...", ""]
)
def test_what_is_no_whole_sentence(sentence: str) -> None:
    assert labelled(sentence) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ["кот", "пёс", "дом", "сад", "лес", "мир", "день", "снег", "мост", "сон", "лук", "звук"]
    lines = [f"Где же {a} и {b}?" for a in names for b in names]
    lines += [f"Вот {a}, а там {b}." for a in names for b in names]
    found = tmp_path_factory.mktemp("texts")
    with gzip.open(found / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join([*lines, lines[0].lower(), "Бесценный."]))
    return found


def config(**changes: object) -> PunctuationConfig:
    plain = {"texts": ("a.txt.gz",), "steps": 6, "warmup": 2, "batch_words": 256, "save_every": 3, "eval_every": 6}
    return PunctuationConfig(**{**plain, "net": SMALL, **changes})


def sentences(texts: Texts) -> set[str]:
    parts = zip(texts.starts, texts.starts[1:], strict=False)
    return {" ".join(texts.vocabulary[i] for i in texts.words[a:b]) for a, b in parts}


def test_no_sentence_is_on_two_sides(folder: Path, tmp_path: Path) -> None:
    made = sides(config(), folder, tmp_path)
    train_, dev, test = (sentences(made[name]) for name in ("train", "dev", "test"))
    assert not train_ & dev
    assert not (train_ | dev) & test
    assert all(held_out(text) for text in test)
    assert not any(held_out(text) for text in train_ | dev)
    again = sides(config(), folder / "none", tmp_path)  # kept
    assert sentences(again["train"]) == train_
    with pytest.raises(DataError):
        sides(config(texts=("none.txt",)), folder, tmp_path / "x")


def test_batches_hold_every_sentence_once_and_labels_fit(folder: Path, tmp_path: Path) -> None:
    texts = sides(config(), folder, tmp_path)["train"]
    vocabulary = Vocabulary(texts.vocabulary)
    made = list(batches(texts, vocabulary, Noise(), num_words=128, seed=[1], augment=False))
    question = texts.vocabulary.index("где")
    for batch in made:
        there = batch.words >= 0
        assert batch.words.shape == batch.marks.shape == batch.pauses.shape
        assert (batch.marks[there] >= 0).all()
        assert (batch.marks[~there] == -1).all()
        assert (batch.pauses[:, -1] == 0).all()
        assert (batch.cases[:, 0] == -1).all()
        spot = np.argwhere(batch.words == question)
        assert all(batch.marks[row, at + 4] == MARKS.index("?") for row, at in spot if at + 4 < batch.words.shape[1])
    other = list(batches(texts, vocabulary, Noise(), num_words=128, seed=[1], augment=False))
    assert all(np.array_equal(a.words, b.words) for a, b in zip(made, other, strict=True))


def test_noise_changes_words_and_no_labels(folder: Path, tmp_path: Path) -> None:
    texts = sides(config(), folder, tmp_path)["train"]
    vocabulary = Vocabulary(texts.vocabulary)
    noise = Noise(noisy=1.0, misheard=0.5, lost=0.2)
    batch = next(batches(texts, vocabulary, noise, num_words=128, seed=[1]))
    there = batch.words >= 0
    assert (batch.words[there] >= vocabulary.size).mean() > 0.2
    assert (batch.marks[there] >= 0).all()
    assert misheard("молоко") == misheard("молоко") != "молоко"


def test_speakers_pause_at_sentence_ends() -> None:
    marks = np.tile([0, 1, 0, 2], (400, 10))
    seconds = simulated_pauses(marks, np.random.default_rng(0))
    medians = [float(np.median(seconds[marks == mark])) for mark in (0, 1, 2)]
    assert medians[0] < medians[1] < medians[2]
    assert (seconds >= 0).all()


def test_a_killed_run_goes_on_as_if_nothing_had_happened(folder: Path, tmp_path: Path) -> None:
    texts = sides(config(), folder, tmp_path)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = torch.load(train(config(), texts, whole), weights_only=True)
    found = torch.load(train(_stopped(texts, parts), texts, parts), weights_only=True)
    assert all(torch.equal(expected["net"][name], found["net"][name]) for name in expected["net"])


def _stopped(texts: dict[str, Texts], out: Path) -> PunctuationConfig:
    """A run of six steps that died after four: three were kept."""
    from rechka.train.punctuation import run as module

    real, seen = module.loss_of, []

    def dying(*args: object) -> object:
        seen.append(1)
        if len(seen) > 4:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    module.loss_of = dying  # type: ignore[assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config(), texts, out)
    finally:
        module.loss_of = real
    return config()


def test_training_learns_and_the_graph_says_the_same(folder: Path, tmp_path: Path) -> None:
    settings = config(steps=60, warmup=5, peak=1e-2, save_every=60, eval_every=60, noise=Noise(noisy=0.0, digits=0.0))
    texts = sides(settings, folder, tmp_path)
    net = load(train(settings, texts, tmp_path))
    assert export(net, tmp_path / "m.onnx", {"name": "small"}) < 0.1
    punctuator = WordPunctuator.load(tmp_path / "m.onnx")
    assert (punctuator.behind, punctuator.ahead) == (4, 1)
    words = [Word(word, 0, 0) for word in ["где", "же", "мост", "и", "лес", "вот", "дом", "а", "там", "снег"]]
    assert " ".join(word.text for word in punctuator(words)) == "Где же мост и лес? Вот дом, а там снег."
    tables = report(punctuator, texts["test"], limit=50, seed=0, recorded=None)
    assert tables.count("| `,` |") == 3


def test_the_network_looks_no_further_than_it_says() -> None:
    torch.manual_seed(0)
    net = PunctuationNet(NetOptions(embedding=8, width=16, layers=4, behind=2, look_ahead=3)).eval()
    words, pieces = torch.randint(1, 100, (1, 40)), torch.randint(1, 100, (1, 40, 8))
    pauses, there = torch.ones(1, 40, dtype=torch.long), torch.ones(1, 40)
    changed = words.clone()
    changed[0, 20] += 1
    with torch.no_grad():
        moved = (net(words, pieces, pauses, there) - net(changed, pieces, pauses, there)).abs().sum(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == list(range(17, 29))


def test_counts_are_what_a_reader_would_count() -> None:
    counts = Counts()
    item = Item(tuple(Word(w, 0, 0) for w in ["да", "иван", "где", "ты"]), (1, 2, 0, 3), (1, 1, 1, 0))
    counts.add(item, tuple(Word(w, 0, 0) for w in ("Да,", "Иван", "где", "ты?")))
    assert counts.row(",") == (100, 100, 100)
    assert (counts.right["."], counts.told["."], counts.there["."]) == (0, 0, 1)
    assert counts.row("?")[2] == 100
    assert counts.row("sentence end")[1] == 50
    assert (counts.right["capital within"], counts.there["capital within"]) == (1, 1)


def test_rows_for_scores(folder: Path, tmp_path: Path) -> None:
    texts = gathered([(0, labelled(s)) for s in ("Да.", "Нет, нет!", "Кто там?")])  # type: ignore[misc]
    items = list(rows(texts, sentences=2, limit=3, seed=0, pauses=True))
    assert sum(len(item.words) for item in items) == 5
    assert all(word.end > word.start for item in items for word in item.words)
    ends = [EndPunctuator()(item.words)[-1].text[-1] for item in items]
    assert ends == [".", "."]
    assert isinstance(PausePunctuator()(items[0].words), tuple)


def test_settings_that_mean_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('texts = ["a"]\nspeed = 3\n')
    with pytest.raises(DataError, match="speed"):
        PunctuationConfig.load(tmp_path / "a.toml")
    recipe = Path(__file__).parents[2] / "recipes/punctuation/run.toml"
    assert PunctuationConfig.load(recipe).net.look_ahead == 4
