"""Inputs and the names of their outputs."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rechka.cli.common import hotwords
from rechka.cli.inputs import AUDIO_SUFFIXES, Input, expand, is_data, output_paths, streamed
from rechka.errors import AudioNotFound, ModelNotFound, UsageError
from rechka.hub.registry import find


def item(path, base=None):
    path = Path(path)
    return Input(str(path), path, Path(base) if base else Path(path.name))


def names(*items):
    return [path.as_posix() for path in output_paths(items, Path("out"), "txt")]


def test_a_lone_name_loses_its_suffix_and_only_that():
    assert names(item("/x/a.b.wav"), item("/x/c")) == ["out/a.b.txt", "out/c.txt"]


def test_names_that_meet_tell_more():
    assert names(item("/x/a.wav"), item("/x/a.mp3")) == ["out/a.wav.txt", "out/a.mp3.txt"]
    assert names(item("/x/a.wav"), item("/y/a.wav")) == ["out/x/a.wav.txt", "out/y/a.wav.txt"]
    assert names(item("/x/A.wav"), item("/x/a.WAV")) != ["out/A.txt", "out/a.txt"]


def test_stdin_has_a_name():
    assert names(Input("-", None, Path("stdin")), item("/x/a.wav")) == ["out/stdin.txt", "out/a.txt"]


part = st.text("aB.", min_size=1, max_size=3).filter(lambda text: text.strip("."))
path = st.lists(part, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(path, min_size=1, max_size=8, unique=True), st.booleans())
def test_no_two_outputs_meet_even_where_letter_case_is_ignored(paths, with_stdin):
    items = [item(path) for path in paths] + ([Input("-", None, Path("stdin"))] if with_stdin else [])
    found = names(*items)
    assert len({name.casefold() for name in found}) == len(items)
    assert all(name.startswith("out/") and name.endswith(".txt") and "/../" not in name for name in found)


def test_expand_takes_audio_of_folders_in_order_and_everything_else_as_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("d/b.WAV", "d/a.mp3", "d/e/c.opus", "d/.git/x.wav", "d/.x.wav", "d/notes.txt", "odd.bin"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    os.symlink("odd.bin", "link.bin")
    found = expand(["d", "odd.bin", "link.bin", "-", "-", "d/a.mp3"])
    assert [entry.name for entry in found] == ["d/a.mp3", "d/b.WAV", "d/e/c.opus", "odd.bin", "-"]
    assert not any(entry.error for entry in found)
    assert found[2].base == Path("e/c.opus")


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("call [1].wav").touch()
    assert [entry.name for entry in expand(["call [1].wav"])] == ["call [1].wav"]


def test_an_input_would_be_overwritten(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match="would be overwritten"):
        output_paths([item(tmp_path / "a.txt")], tmp_path, "txt")


def test_suffixes_are_lower_case_with_a_dot():
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in AUDIO_SUFFIXES)


def test_hotwords():
    assert hotwords(None) is None
    assert hotwords(["договор", "личный кабинет:7.5", "а:б:2"]) == {"договор": 5.0, "личный кабинет": 7.5, "а:б": 2.0}
    for wrong in ("", " :3", "слово:", "слово:nan", "слово:x"):
        with pytest.raises(UsageError):
            hotwords([wrong])


@pytest.mark.parametrize("name", ["a" * 300 + ".wav", "b" * 300 + ".jsonl", "d/" + "c" * 5000])
def test_a_name_longer_than_the_system_takes_is_told_and_the_others_are_done(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.wav").touch()
    assert not is_data("d/" + "c" * 5000)
    first, second = expand([name, "a.wav"])
    assert isinstance(first.error, AudioNotFound)
    assert "cannot be reached" in first.error.message
    assert (second.name, second.error) == ("a.wav", None)
    with pytest.raises(ModelNotFound):
        find(f"./{name}")


def test_records_whose_names_are_no_file_names_have_bases(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "."}\n{"audio_filepath": "/"}\n', "utf-8")
    kaldi = tmp_path / "kaldi"
    kaldi.mkdir()
    (kaldi / "wav.scp").write_text("r /x.wav\n", "utf-8")
    names = ("7", "²", "1" * 5000)
    (kaldi / "segments").write_text("".join(f"{name} r 0 1\n" for name in names), "utf-8")
    found = [str(entry.base) for entry in streamed([str(tmp_path / "m.jsonl"), str(kaldi)])]
    folder = tmp_path.name
    assert found == [folder, "record000002", "record000007", "².flac", "1" * 5000 + ".flac"]
