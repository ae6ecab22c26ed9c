"""Finding models: by name, by folder, by card; in the package and in the cache."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rechka.errors import BadCard, ModelNotFound, UsageError
from rechka.hub import registry
from rechka.hub.card import Card, CardFile
from rechka.hub.registry import Lock, Locked, entries, find, home


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setenv("RECHKA_HOME", str(root))
    return root


def write_card(path: Path, name: str = "mine", **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    card = Card(name=name, family="tone", language="ru", license="MIT", files={"model": CardFile("model.onnx")}, **more)  # type: ignore[arg-type]
    path.write_text(card.to_toml(), "utf-8")
    return path


def test_the_cache_folder_follows_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert home() == tmp_path / "cache"
    monkeypatch.delenv("RECHKA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "xdg" / "rechka"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert home() == tmp_path / ".cache" / "rechka"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert home() == tmp_path / "Library" / "Caches" / "rechka"


def test_the_home_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFound, match="~no-such-user/x"):
        find("~no-such-user/x")
    for wrong in ("~no-such-user/x", "/" + "x" * 300, f"{__file__}/x"):
        monkeypatch.setenv("RECHKA_HOME", wrong)
        with pytest.raises(UsageError, match="RECHKA_HOME"):
            home()


def test_built_in_models_are_known_without_a_cache_folder(cache: Path) -> None:
    known, broken = entries()
    assert "t-one" in {entry.card.name for entry in known}
    assert broken == {}
    assert not cache.exists()


def test_t_one_has_its_place_in_the_cache(cache: Path) -> None:
    entry = find("t-one")
    assert entry.origin == "built-in"
    assert entry.path("model") == cache / "models" / "t-one" / "model.onnx"
    assert entry.missing() == ["model"]
    assert not entry.ready
    entry.folder.mkdir(parents=True)
    entry.path("model").touch()
    assert entry.ready
    assert entry.on_disk() == {"model": entry.path("model")}


def test_a_users_card_hides_a_built_in_one(cache: Path) -> None:
    write_card(cache / "cards" / "t-one.toml", "t-one")
    entry = find("t-one")
    assert (entry.origin, entry.card.license) == ("user", "MIT")
    assert entry.folder == cache / "models" / "t-one"
    assert [found.card.name for found in entries()[0]].count("t-one") == 1


def test_a_whole_folder_put_into_the_cache_is_found(cache: Path) -> None:
    write_card(cache / "models" / "whatever" / "card.toml", "mine")
    assert find("mine").folder == cache / "models" / "whatever"


def test_a_folder_with_a_card(tmp_path: Path) -> None:
    path = write_card(tmp_path / "here" / "card.toml")
    for model in (path, path.parent, str(path), f"{path.parent}/"):
        entry = find(model)
        assert (entry.card.name, entry.folder, entry.origin) == ("mine", path.parent, "folder")


@pytest.mark.parametrize(
    ("files", "lm"),
    [
        (["model.onnx"], None),
        (["model.onnx", "kenlm.bin"], "kenlm.bin"),
        (["model.onnx", "lm.arpa"], "lm.arpa"),
        (["model.onnx", "kenlm.bin", "our.rlm"], "our.rlm"),
    ],
)
def test_a_folder_of_the_published_layout_needs_no_card(tmp_path: Path, files: list[str], lm: str | None) -> None:
    folder = tmp_path / "Моя модель T-one"
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    entry = find(folder)
    assert (entry.card.family, entry.card.name) == ("tone", "t-one")
    assert entry.ready
    assert entry.card.files.get("lm") == (None if lm is None else CardFile(lm, optional=True))


def test_a_folder_of_the_published_layout_may_hold_the_weights(tmp_path: Path) -> None:
    for name in ("model.onnx", "config.json"):
        (tmp_path / name).touch()
    assert find(tmp_path).on_disk().keys() == {"model"}
    (tmp_path / "model.safetensors").touch()
    assert find(tmp_path).on_disk() == {
        "model": tmp_path / "model.onnx",
        "weights": tmp_path / "model.safetensors",
        "config": tmp_path / "config.json",
    }


def test_what_is_not_there_says_where_it_was_looked_for(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find("t-two")
    message = str(caught.value)
    assert "'t-two'" in message
    assert str(cache) in message
    assert "t-one" in caught.value.remedy
    with pytest.raises(ModelNotFound, match="does not exist"):
        find(tmp_path / "nowhere")
    with pytest.raises(ModelNotFound, match=r"neither card\.toml nor model\.onnx") as caught:
        find(tmp_path)
    assert "docs/models.md" in caught.value.remedy
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ModelNotFound, match="expected a folder or a card") as caught:
        find(tmp_path / "model.onnx")
    assert str(tmp_path) in caught.value.remedy
    with pytest.raises(UsageError):
        find(" ")


def test_a_name_is_not_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_card(tmp_path / "near" / "card.toml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound, match=r"write \./near"):
        find("near")
    assert find("./near").card.name == "mine"


def test_a_broken_card_is_reported_and_hides_nothing_else(cache: Path) -> None:
    path = write_card(cache / "cards" / "bad.toml")
    path.write_text("name = 1", "utf-8")
    known, broken = entries()
    assert "t-one" in {entry.card.name for entry in known}
    assert list(broken) == [path]
    assert str(path) in str(broken[path])
    assert find("t-one").card.name == "t-one"
    with pytest.raises(BadCard, match=r"bad\.toml"):
        find("bad")


LOCK = Lock("a/b", "", "c" * 40, "https://x", {"model": Locked("model.onnx", 3, "d" * 64)})


def test_the_record_is_read_back(tmp_path: Path) -> None:
    assert Lock.read(tmp_path) is None
    (tmp_path / "lock.json").write_text(LOCK.to_json(), "utf-8")
    assert Lock.read(tmp_path) == LOCK


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": []}', '{"repo": 1, "files": {"model": 1}}', "\udcff", "[" * 100_000]
)
def test_a_damaged_record_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadCard, match="is damaged") as caught:
        Lock.read(tmp_path)
    assert "--update" in caught.value.remedy


def test_what_a_file_must_be_comes_from_the_card_then_from_the_record(cache: Path) -> None:
    entry = find("t-one")
    lock = Lock("t-tech/T-one", "", "c" * 40, "x", {"model": Locked("model.onnx", 3, "d" * 64)})
    assert lock.fits(entry.card)
    assert (entry.expected("model", lock).size, entry.expected("model", lock).sha256) == (3, "d" * 64)
    moved = Lock("t-tech/T-one", "", "c" * 40, "x", {"model": Locked("other.onnx", 3, "d" * 64)})
    assert entry.expected("model", moved).size is None
    stated = registry.Entry(
        Card("m", "tone", "ru", "MIT", files={"model": CardFile("model.onnx", size=5)}), cache, "user"
    )
    assert stated.expected("model", lock).size == 5
    assert not lock.fits(stated.card)


def test_an_unknown_name_is_told_shortly_with_what_is_like_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "call.wav").touch()
    (tmp_path / "mine").mkdir()
    for name, hint in (
        ("gigaam-v3-rnn", "did you mean gigaam-v3-rnnt"),
        ("call.wav", "a file of that name is here"),
        ("mine", "write ./mine"),
    ):
        with pytest.raises(ModelNotFound) as caught:
            find(name)
        assert hint in caught.value.remedy
        assert caught.value.remedy.endswith("rechka models list")
        assert len(caught.value.remedy) < 160
