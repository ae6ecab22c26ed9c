"""Reading n-gram models in ARPA format, plain or gzipped, line by line.

Source of the format: ngram-format(5) of SRILM. Values are base-10 logarithms; a missing back-off is 0.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rechka.decoding.ngram_file import MAX_ORDER, MAX_WORDS, Ngrams, pack_ngrams
from rechka.errors import BadLanguageModel

_MAX_LINE = 1 << 16
_COUNT = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)")
_SPLIT = re.compile(r"[\t ]+")


def read_arpa(path: str | os.PathLike[str]) -> Ngrams:
    """Read an ARPA file at full precision. Memory follows what the file really holds, not what its header says.

    Raises:
        BadLanguageModel: not an ARPA file, or a damaged one; the message names the line.
    """
    try:
        with Path(path).open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as file:
                    return _Reader(path, file).read()
            return _Reader(path, raw).read()
    except (OSError, EOFError, zlib.error) as error:
        raise BadLanguageModel(f"cannot read language model {path}: {error}") from error


class _Reader:
    """One pass over the lines, counting them."""

    def __init__(self, path: str | os.PathLike[str], file: BinaryIO | gzip.GzipFile) -> None:
        self.path = path
        self.file = file
        self.number = 0
        self.ids: dict[str, int] = {}

    def bad(self, what: str) -> BadLanguageModel:
        """The error for the line at hand."""
        return BadLanguageModel(
            f"language model {self.path}, line {self.number}: {what}",
            remedy="expected an ARPA file, an .rlm file or a KenLM binary; fetch or build it again",
        )

    def lines(self) -> Iterator[str]:
        """Lines that are not empty, stripped."""
        while True:
            raw = self.file.readline(_MAX_LINE)
            if not raw:
                return
            self.number += 1
            if len(raw) == _MAX_LINE:
                raise self.bad(f"a line of {_MAX_LINE} bytes or more")
            try:
                line = raw.decode().strip("\r\n\t ")
            except UnicodeDecodeError as error:
                raise self.bad("not UTF-8 text") from error
            if line:
                yield line

    def read(self) -> Ngrams:
        """The whole file."""
        lines = self.lines()
        counts, line = self._header(lines)
        ids, logps, backoffs = [], [], []
        for order in range(1, len(counts) + 1):
            if line != f"\\{order}-grams:":
                raise self.bad(f"expected \\{order}-grams:, got {line[:40]!r}")
            rows, logp, backoff = array("i"), array("f"), array("f")
            line = ""
            for line in lines:
                if line.startswith("\\") and (line == "\\end\\" or line.endswith("-grams:")):
                    break
                self._ngram(line, order, rows, logp, backoff)
                if len(logp) > counts[order - 1]:
                    raise self.bad(f"more than the {counts[order - 1]} n-grams of order {order} that the header tells")
            else:
                line = ""
            if len(logp) != counts[order - 1]:
                raise self.bad(f"expected {counts[order - 1]} n-grams of order {order}, got {len(logp)}")
            ids.append(np.frombuffer(rows, np.int32).reshape(-1, order))
            logps.append(np.frombuffer(logp, np.float32))
            backoffs.append(np.frombuffer(backoff, np.float32))
        if line != "\\end\\":
            raise self.bad(f"expected \\end\\, got {line[:40]!r}")
        try:
            return pack_ngrams(list(self.ids), ids, logps, backoffs)
        except BadLanguageModel as error:
            raise BadLanguageModel(f"language model {self.path}: {error.message}", remedy=error.remedy) from error

    def _header(self, lines: Iterator[str]) -> tuple[list[int], str]:
        """Counts per order, and the line after them."""
        for line in lines:
            if line == "\\data\\":
                break
            if self.number > 1000:
                raise self.bad("no \\data\\ in the first 1000 lines")
        else:
            raise self.bad("no \\data\\ section")
        counts: list[int] = []
        for line in lines:
            match = _COUNT.fullmatch(line)
            if match is None:
                break
            if int(match[1]) != len(counts) + 1 or len(counts) == MAX_ORDER:
                raise self.bad(f"expected counts of orders 1 to at most {MAX_ORDER}, one after the other")
            counts.append(int(match[2]))
        else:
            raise self.bad("the file ends in its header")
        if not counts:
            raise self.bad("the header tells no counts")
        return counts, line

    def _ngram(self, line: str, order: int, rows: array[int], logp: array[float], backoff: array[float]) -> None:
        fields = _SPLIT.split(line)
        if len(fields) not in (order + 1, order + 2):
            raise self.bad(f"expected a log-prob, {order} words and perhaps a back-off, got {line[:80]!r}")
        try:
            first = float(fields[0])
            last = float(fields[order + 1]) if len(fields) == order + 2 else 0.0
        except ValueError as error:
            raise self.bad(f"not a number in {line[:80]!r}") from error
        if not (math.isfinite(first) and math.isfinite(last)) or first > 0.0:
            raise self.bad(f"a log-prob above zero or not finite in {line[:80]!r}")
        for word in fields[1 : order + 1]:
            if word == "<UNK>":
                word = "<unk>"
            known = self.ids.get(word)
            if known is None:
                if order > 1:
                    raise self.bad(f"{word!r} is not among the single words")
                if len(self.ids) == MAX_WORDS:
                    raise self.bad(f"more than {MAX_WORDS} words")
                known = self.ids[word] = len(self.ids)
            elif order == 1:
                raise self.bad(f"{word!r} comes twice")
            rows.append(known)
        logp.append(first)
        backoff.append(last)
