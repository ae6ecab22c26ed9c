"""The table of rules in docs/whisper.md names code and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "whisper.md").read_text(encoding="utf-8")
TABLE = PAGE.split("## Every rule and its test")[1].split("\n## ")[0]
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| rule")]
NAMED = re.compile(r"`(?:([^`]*\.py)(?:::)?)?([^`]*)`")
"""A file, a test in it, or a test in the file named before."""


def _file(name: str) -> Path:
    folder, _, short = name.rpartition("/")
    return ROOT / "tests" / (folder or "unit") / short.replace("…", "test_whisper_")


@pytest.mark.parametrize("row", ROWS)
def test_every_test_of_a_row_exists(row: str) -> None:
    source = ""
    for file, function in NAMED.findall(row.split(" | ")[-1]):
        source = _file(file).read_text(encoding="utf-8") if file else source
        if function:
            assert re.search(rf"^def {function.replace('*', '[a-z0-9_]*')}\(", source, re.MULTILINE), function


def test_there_are_rows() -> None:
    assert len(ROWS) > 15
