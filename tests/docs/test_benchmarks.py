"""The benchmark pages are what their figures make, and the capacity page is what its command prints."""

import importlib
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/benchmarks"


@pytest.fixture
def bench(monkeypatch):
    """Modules of benchmarks/, which are scripts and import one another by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = ("record", "plot", "pages", "suite")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = {name: importlib.import_module(name) for name in names}
    yield type("Bench", (), found)
    for name in names:
        sys.modules.pop(name, None)


def row(bench, ours, theirs, **more):
    return bench.record.Row("a model", "another program", 10.0, ours, theirs, **more)


def test_the_committed_pages_are_made_of_the_committed_figures(bench):
    records = bench.suite.read(FOLDER)
    assert set(records) == set(bench.suite.SCRIPTS), "every part has been measured"
    for path, text in bench.suite.written(records, ROOT / "docs/benchmarks.md").items():
        assert path.read_text(encoding="utf-8") == text, "run: python benchmarks/suite.py --pages --write ..."


def test_every_committed_ratio_has_rounds(bench):
    for record in bench.suite.read(FOLDER).values():
        assert record.rounds >= 3
        assert all(len(r.ours_s) == len(r.peer_s) == record.rounds for r in record.rows)


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_the_readme_repeats_the_figures(bench, name):
    records = bench.suite.read(FOLDER)
    int8 = next(r for r in records["file"].rows if "int8" in r.ours and "plain" in r.peer)
    beam = next(r for r in records["beam"].rows if "T-one" in r.what and "noisy, 10 %" in r.what)
    shown = re.findall(r"\| (\S+)(?: \(int8\))? \| `make bench` \|", (ROOT / name).read_text(encoding="utf-8"))
    assert [x.replace(",", ".") for x in shown] == [f"{int8.median:.1f}", f"{beam.median:.0f}"]


def test_a_ratio_is_taken_within_a_round(bench):
    assert row(bench, [1.0, 2.0], [3.0, 2.0]).ratios == [3.0, 1.0]


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [
        ([2, 3, 4], "faster"),
        ([2, 3, 4, 0.9], "faster"),
        ([0.5, 0.9, 0.8, 1.1], "**slower**"),
        ([0.5, 0.9, 0.8], "**slower**"),
        ([0.9, 1.1, 1.2], "even"),
        ([0.8, 0.9, 1.2], "**even, rather slower**"),
    ],
)
def test_losses_are_marked(bench, theirs, verdict):
    found = row(bench, [1.0] * len(theirs), theirs)
    assert found.verdict == verdict
    assert verdict in bench.record.table([found])[-1]


def test_figures_come_back_from_json_as_they_were(bench, tmp_path):
    record = bench.record.Record("beam", rows=[row(bench, [1.25], [2.5], result="equal")], skipped={"x": "not there"})
    record.write(tmp_path / "beam.json")
    back = bench.record.Record.read(tmp_path / "beam.json")
    assert [list(r.ratios) for r in back.rows] == [[2.0]]
    assert (back.skipped, back.machine, back.rows[0].result) == (record.skipped, record.machine, "equal")


def test_a_part_whose_peer_is_missing_says_so_on_the_page(bench, tmp_path):
    record = bench.record.Record("whisper", skipped={"faster-whisper": "No module named 'faster_whisper'"})
    made = bench.suite.written({"whisper": record}, tmp_path / "benchmarks.md")
    assert "No module named 'faster_whisper'" in made[tmp_path / "benchmarks.md"]
    assert tmp_path / "whisper_parity.md" not in made, "half a comparison does not replace the whole one"


def test_a_missing_module_is_told_with_the_reason(bench):
    assert "no_such_module" in bench.record.missing(sys.executable, "no_such_module")
    assert bench.record.missing(sys.executable, "json") == ""
    assert bench.record.missing("/no/such/python", "json")


def test_the_picture_is_well_formed_and_shows_every_row(bench):
    rows = [row(bench, [1.0], [x]) for x in (0.2, 1.0, 40.0)]
    picture = ET.fromstring(bench.plot.ratios([("<part>", rows)]))
    marks = [e for e in picture.iter() if e.tag.endswith("circle") or (e.get("class") == "slower" and e.get("height"))]
    assert len(marks) == 3
    assert len({e.get("cx") or e.get("x") for e in marks}) == 3


def test_the_python_of_a_part(bench):
    choose = bench.suite.python_of
    assert choose("beam", []) == sys.executable
    assert choose("beam", ["a", "beam=b"]) == "b"
    assert choose("file", ["beam=b", "a"]) == "a"


def test_the_capacity_page_is_what_its_command_prints():
    page = (ROOT / "docs/capacity.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- begin: written by .*? -->\n`(?P<command>.+?)`\n\n(?P<text>.*?)<!-- end -->\n", page, re.S)
    words = shlex.split(found["command"])
    assert words[:2] == ["python", "benchmarks/capacity.py"]
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == found["text"]
