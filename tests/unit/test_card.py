"""Cards: what they say, what they may not say, and that writing and reading are inverse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rechka.errors import BadCard
from rechka.hub import toml
from rechka.hub.card import FAMILIES, MAX_CARD_BYTES, Card, CardFile, Result

unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy; time is not what these tests are about."""

CARDS = Path(__import__("rechka").__file__).parent / "hub" / "cards"

MINIMAL = 'name = "m"\nfamily = "toy"\nlanguage = "ru"\nlicense = "MIT"\n'


def with_file(path: str) -> str:
    return MINIMAL + f"[files.model]\npath = {toml.dumps({'p': path})[4:]}"


def test_a_minimal_card_has_empty_rest() -> None:
    assert Card.parse(MINIMAL) == Card(name="m", family="toy", language="ru", license="MIT")


@pytest.mark.parametrize("path", sorted(CARDS.glob("*.toml")), ids=lambda path: path.stem)
def test_built_in_cards_are_read_and_named_like_their_files(path: Path) -> None:
    card = Card.read(path)
    assert card.name == path.stem
    assert {"en", "ru"} <= card.summary.keys()


def test_the_card_of_t_one() -> None:
    card = Card.read(CARDS / "t-one.toml")
    assert (card.family, card.repo, card.license) == ("tone", "t-tech/T-one", "Apache-2.0")
    assert card.files["model"].path == "model.onnx"
    assert not card.files["model"].optional
    assert card.files["lm"].optional
    assert not any(result.measured for result in card.results)
    assert {8.63, 6.20, 5.83, 5.32, 20.27, 7.94} <= {result.value for result in card.results}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "../model.onnx", "a/../../b", "a/..", "..", ".", "", "a//b", "a/", "C:/x", "C:x",
        "\\\\host\\x", "a\\b",
        "a\nb", "a\0b", ".ssh/id", "a/.hidden", "~/x", "модель.onnx", "con:", "a.", "x" * 300, "card.toml", "LOCK.JSON",
        "lock.json/x", "$HOME/x", "%2e%2e/x", "a b", "-rf",
    ],
)  # fmt: skip
def test_a_path_that_could_leave_its_folder_is_refused(path: str) -> None:
    with pytest.raises(BadCard, match=r"model"):
        Card.parse(with_file(path))


@pytest.mark.parametrize("path", ["model.onnx", "onnx/model_int8.onnx", "a+b-1.2_c/x.rlm"])
def test_plain_paths_are_taken(path: str) -> None:
    assert Card.parse(with_file(path)).files["model"].path == path


@unhurried
@given(st.text(max_size=40))
def test_a_path_that_is_taken_stays_in_its_folder(path: str) -> None:
    try:
        card = Card.parse(with_file(path))
    except BadCard:
        return
    folder = Path("/models/m")
    inside = (folder / card.files["model"].path).resolve()
    assert inside.is_relative_to(folder)
    assert inside != folder


def test_two_roles_cannot_share_a_file_even_where_case_is_folded() -> None:
    with pytest.raises(BadCard, match="also the path of 'model'"):
        Card.parse(MINIMAL + '[files.model]\npath = "m.onnx"\n[files.lm]\npath = "M.onnx"\n')


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("colour = 1", "unknown key 'colour'"),
        ("[files.model]\npath = 'm'\nsha1 = 'x'", r"\[files\]: \[model\]: unknown key 'sha1'"),
        ("[decoder]\nbeam = 3", r"\[decoder\]: unknown key 'beam'"),
        ("[segmenter]\nmin_silence_ms = 3", r"\[segmenter\]: unknown key"),
        ("[title]\nde = 'x'", r"\[title\]: unknown key 'de'"),
        ("[decoder]\nkind = 'magic'", "'greedy', 'beam' or 'auto'"),
        ("[decoder]\nbeam_width = '48'", "whole number"),
        ("[decoder]\nalpha = nan", "finite"),
        ("[decoder.hotwords]\n'слово' = true", "finite number"),
        ("[params]\nx = inf", "finite"),
        ("[params]\nx = 1979-05-27", "texts, numbers"),
        ("[files.model]\npath = 'm'\nsize = -1", "whole number"),
        ("[files.model]\npath = 'm'\nsize = true", "whole number"),
        ("[files.model]\npath = 'm'\nsize = 1.5", "whole number"),
        ("[files.model]\npath = 'm'\nsize = 99999999999999999999", "whole number"),
        ("[files.model]\npath = 'm'\nsha256 = 'abc'", "64 lower-case hexadecimal digits"),
        (f"[files.model]\npath = 'm'\nsha256 = '{'A' * 64}'", "64 lower-case hexadecimal digits"),
        ("[files.model]\npath = 'm'\noptional = 'no'", "true or false"),
        ("[files.model]\nsize = 1", "'path' is missing"),
        ("[files]\nmodel = 'm.onnx'", "'model' must be a table"),
        ("[files.'../x']\npath = 'm'", "role"),
        ("repo = 'no-slash'", "'owner/name'"),
        ("repo = 'a/..'", "'owner/name'"),
        ("repo = 'a/b..c'", "'..'"),
        ("repo = 'a/b/c'", "'owner/name'"),
        ("repo = 'a/b\\u000a'", "'owner/name'"),
        ("revision = 'refs/../x'", "'..'"),
        ("revision = '--upload-pack'", "commit, tag or branch"),
        ("source = 'file:///etc/passwd'", "http"),
        ("[[results]]\ntest = 'x'\nmetric = 'WER'\nvalue = 1", "'command' that made it or the 'source'"),
        ("[[results]]\ntest = 'x'\nmetric = 'WER'\nvalue = '1'\nsource = 'y'", "finite number"),
        ("[results]\nx = 1", "array of tables"),
    ],
)
def test_what_is_refused_and_why(extra: str, message: str) -> None:
    with pytest.raises(BadCard, match=message) as caught:
        Card.parse(MINIMAL + extra, where="here.toml")
    assert "here.toml" in str(caught.value)


@pytest.mark.parametrize("key", ["name", "family", "language", "license"])
def test_a_missing_key_is_named(key: str) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key))
    with pytest.raises(BadCard, match=rf"key '{key}' is missing"):
        Card.parse(text)


@pytest.mark.parametrize("name", ["", " ", "T-One", "a/b", "../x", ".x", "имя", "x" * 65])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(BadCard, match="'name'"):
        Card.parse(MINIMAL.replace('"m"', f'"{name}"'))


def test_a_family_comes_from_the_table_only() -> None:
    with pytest.raises(BadCard, match=r"os\.path") as caught:
        Card.parse(MINIMAL.replace("toy", "os.path"))
    assert all(family in caught.value.remedy for family in FAMILIES)


@pytest.mark.parametrize("text", ["name = ", "[[[", "a = 1\na = 2", "x = " + "[" * 5000])
def test_text_that_is_not_toml(text: str) -> None:
    with pytest.raises(BadCard, match="is not TOML"):
        Card.parse(text)


def test_a_file_that_is_no_card(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    with pytest.raises(BadCard, match="cannot be read"):
        Card.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadCard, match="not UTF-8"):
        Card.read(path)
    path.write_bytes(b"#" * (MAX_CARD_BYTES + 1))
    with pytest.raises(BadCard, match="larger than"):
        Card.read(path)


def test_a_long_hostile_value_does_not_flood_the_message() -> None:
    with pytest.raises(BadCard) as caught:
        Card.parse(MINIMAL + f"repo = '{'x' * 100_000}'")
    assert len(str(caught.value)) < 500


def test_to_toml_refuses_a_card_that_could_not_be_read() -> None:
    with pytest.raises(BadCard, match="plain relative path"):
        Card(name="m", family="toy", language="ru", license="MIT", files={"model": CardFile("../x")}).to_toml()


texts = st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.one_of(texts, st.integers(-(2**60), 2**60), floats, st.booleans())
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
card_files = st.builds(
    CardFile,
    path=st.just("?"),
    size=st.none() | st.integers(0, 2**49),
    approx_size=st.none() | st.integers(0, 2**49),
    sha256=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    optional=st.booleans(),
)
results = st.builds(
    Result,
    test=texts,
    metric=texts,
    value=floats,
    interval=st.none() | st.tuples(floats, floats),
    command=texts,
)
cards = st.builds(
    Card,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    family=st.sampled_from(sorted(FAMILIES)),
    language=st.sampled_from(["ru", "en", "ru-RU"]),
    license=texts,
    title=st.dictionaries(st.sampled_from(["en", "ru"]), texts),
    summary=st.dictionaries(st.sampled_from(["en", "ru"]), texts),
    repo=st.sampled_from(["", "t-tech/T-one"]),
    revision=st.sampled_from(["", "main", "0123abcd"]),
    files=st.dictionaries(st.sampled_from(["model", "lm", "config"]), card_files).map(
        lambda files: {role: replace(file, path=f"{role}.x") for role, file in files.items()}
    ),
    params=st.dictionaries(st.text(max_size=8), plain, max_size=4),
    decoder=st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(["greedy", "beam", "auto"]),
            "beam_width": st.integers(1, 500),
            "alpha": floats,
            "hotwords": st.dictionaries(texts, floats, min_size=1, max_size=3),
        },
    ),
    segmenter=st.fixed_dictionaries({}, optional={"min_silence_s": floats, "max_phrase_s": floats}),
    confidence=st.none() | st.tuples(floats, floats),
    results=st.lists(results, max_size=3).map(tuple),
)  # fmt: skip


@unhurried
@given(cards)
def test_writing_and_reading_are_inverse(card: Card) -> None:
    assert Card.parse(card.to_toml()) == card


@unhurried
@given(st.dictionaries(st.text(max_size=6), plain, max_size=5))
def test_the_toml_writer_is_read_back(table: dict[str, object]) -> None:
    assert toml.loads(toml.dumps(table)) == table


def test_the_toml_writer_refuses_what_toml_has_not() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml.dumps({"a": None})


@unhurried
@given(st.text(max_size=200))
def test_no_text_does_worse_than_bad_card(text: str) -> None:
    try:
        card = Card.parse(text)
    except BadCard:
        return
    assert card.name


def test_a_figure_is_measured_if_a_command_made_it() -> None:
    assert Result("t", "WER %", 1.0, command="rechka evaluate x").measured
    assert not Result("t", "WER %", 1.0, source="a paper").measured
    assert not math.isnan(Result("t", "WER %", 1.0, source="a paper").value)


def test_the_summary_falls_back_to_english() -> None:
    card = Card(name="m", family="toy", language="ru", license="MIT", summary={"en": "small"})
    assert card.describe("ru") == "small"
    assert Card(name="m", family="toy", language="ru", license="MIT").describe() == ""
