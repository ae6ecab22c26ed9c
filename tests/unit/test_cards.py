"""The built-in cards: every published model, each with licence, files and sources; and the map that is made of them."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

import rechka
from rechka.errors import ModelNotFound
from rechka.hub.card import FAMILIES, Card
from rechka.hub.map import FAMILY_ORDER, TESTS, Line, ordered, size_of
from rechka.hub.registry import Entry, entries
from rechka.options import DecoderOptions, SegmenterOptions

ROOT = Path(__file__).parents[2]
CARDS = {path.stem: Card.read(path) for path in sorted((Path(rechka.__file__).parent / "hub/cards").glob("*.toml"))}
GIGAAM = {
    *(f"v{version}_{task}" for version in (1, 2) for task in ("ctc", "rnnt", "ssl")),
    *(f"v3_{task}" for task in ("ctc", "rnnt", "e2e_ctc", "e2e_rnnt", "ssl")),
    *("multilingual_ctc", "multilingual_ssl", "multilingual_large_ctc", "multilingual_large_ssl", "emo"),
}
WHISPER = {"tiny", "base", "small", "medium", "large-v1", "large-v2", "large-v3", "large-v3-turbo"}


def test_every_published_model_has_a_card() -> None:
    assert {f"gigaam-{name.replace('_', '-')}" for name in GIGAAM} <= CARDS.keys()
    assert {f"whisper-{name}" for name in WHISPER} <= CARDS.keys()
    assert {"t-one", "vosk-ru", "vosk-small-ru", "vosk-small-streaming-ru", "toy"} <= CARDS.keys()


def test_names_are_unique_also_with_the_embedded_one() -> None:
    known, broken = entries()
    assert broken == {}
    assert max(Counter(entry.card.name for entry in known).values()) == 1
    assert CARDS.keys() <= {entry.card.name for entry in known}


@pytest.mark.parametrize("card", [pytest.param(card, id=name) for name, card in CARDS.items()])
def test_a_card_is_complete_and_says_where_its_figures_come_from(card: Card) -> None:
    assert card.license in ("Apache-2.0", "MIT")
    assert card.family in FAMILY_ORDER
    assert card.family in FAMILIES
    assert {"en", "ru"} == card.title.keys() == card.summary.keys()
    assert all(result.source and not result.command for result in card.results)
    same = Counter((result.test, result.metric, result.source) for result in card.results)
    assert max(same.values(), default=1) == 1
    if card.family != "toy":
        assert card.source
        assert card.files
        assert card.repo or card.originals, "nobody could get it"
        size = size_of(Entry(card, ROOT / "nowhere", "built-in"))
        assert size is not None
        assert size > 50_000_000
    DecoderOptions(**card.decoder)
    SegmenterOptions(**card.segmenter)
    assert Card.parse(card.to_toml()) == card


@pytest.mark.parametrize("card", [pytest.param(c, id=n) for n, c in CARDS.items() if c.family == "gigaam"])
def test_gigaam_cards_name_the_authors_checkpoint_and_their_family_s_roles(card: Card) -> None:
    checkpoint = card.originals["checkpoint"]
    assert checkpoint.md5
    assert checkpoint.name.removesuffix(".ckpt") in GIGAAM
    assert checkpoint.name.startswith(card.name.removeprefix("gigaam-").removesuffix("-int8").replace("-", "_"))
    roles = {"ctc": {"model"}, "rnnt": {"encoder", "decoder", "joiner"}, "ssl": {"encoder"}, "emo": {"model"}}
    assert roles[card.params["task"]] <= card.files.keys()
    old = any(part in card.name for part in ("-v1-", "-v2-", "-emo"))
    assert (card.params["n_fft"], card.params["center"]) == ((400, True) if old else (320, False))
    named = {file.path for file in card.files.values()}
    if not card.repo:  # as rechka models convert writes them
        assert "frontend.npz" in named
        assert named <= {
            "model.onnx", "encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt", "frontend.npz",
        }  # fmt: skip


def test_figures_that_the_specifications_give() -> None:
    def rate(name: str, test: str) -> float | None:
        return Line.of(Entry(CARDS[name], ROOT, "built-in"), test).wer

    assert [rate("gigaam-v3-rnnt", test) for test in TESTS] == [4.4, 0.9, 17.4]
    assert [rate("t-one", test) for test in TESTS] == [6.2, 5.32, 19.8]
    assert [rate("whisper-large-v3", test) for test in TESTS] == [9.4, 5.5, 27.4]
    assert rate("gigaam-v3-ctc-int8", TESTS[0]) is None, "the full model's figure is not the quantized one's"


def test_a_model_that_has_to_be_converted_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path))
    with pytest.raises(ModelNotFound, match="rechka models pull gigaam-emo gets it and says how to convert it"):
        rechka.load("gigaam-emo", offline=False)


def test_the_map_is_ordered_by_family_then_by_error_rate() -> None:
    lines = ordered((Line.of(Entry(card, ROOT, "built-in"), TESTS[0]) for card in CARDS.values()), first="toy")
    assert lines[0].name == "toy"
    places = [FAMILY_ORDER.index(line.family) for line in lines[1:]]
    assert places == sorted(places)
    rates = [line.wer for line in lines if line.family == "gigaam"]
    told = [rate for rate in rates if rate is not None]
    assert rates == sorted(told) + [None] * (len(rates) - len(told))


def test_the_map_in_the_docs_is_current() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/models.md").read_text("utf-8")
    assert module.models_page() == page, "run: make docs"
    assert all(f"| `{name}` |" in page for name in CARDS)
