"""Token tables as models carry them.

Text: ``SYMBOL ID`` a line, the word start written as U+2581, the blank by its name. Or a SentencePiece ``.model``,
whose pieces are read without its library (sentencepiece_model.proto); the blank then follows the last piece.
"""

from __future__ import annotations

import io
from pathlib import Path

from rechka.backends.protobuf import FieldReader
from rechka.errors import BadModelFile, ModelNotFound
from rechka.types import Tokens

WORD_START = "\u2581"
BLANKS = ("<blk>", "<blank>", "<eps>")
_MAX_BYTES = 1 << 22


def read_tokens(path: Path, *, pieces: bool | None = None) -> Tokens:
    """The vocabulary in a file.

    Args:
        path: UTF-8 text, where the symbol may be a space itself, as sherpa-onnx writes it; or ``.model``.
        pieces: whether the symbols are SentencePiece pieces; None looks whether any begins with U+2581 and goes on.
    Raises:
        ModelNotFound: no such file.
        BadModelFile: not such a table, or one without a blank.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ModelNotFound(f"no token table at {path}", remedy="it belongs beside the model's graphs") from None
    except OSError as error:
        raise BadModelFile(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
        symbols = _pieces(data) if path.suffix == ".model" else _parse(data.decode("utf-8-sig"))
    except ValueError as error:
        raise BadModelFile(f"{path} is no token table: {error}", remedy="expected a symbol and its id a line") from None
    pieces = True if path.suffix == ".model" else pieces
    blank = next((symbols.index(name) for name in BLANKS if name in symbols), None)
    if blank is None:
        raise BadModelFile(f"{path} names no blank", remedy=f"one of its symbols must be {' or '.join(BLANKS)}")
    if pieces is None:
        pieces = any(symbol.startswith(WORD_START) and len(symbol) > 1 for symbol in symbols)
    texts = tuple("" if i == blank else symbol.replace(WORD_START, " ") for i, symbol in enumerate(symbols))
    return Tokens(texts, blank, pieces)


def _parse(text: str) -> list[str]:
    found: dict[int, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip():
            continue
        symbol, mark, index = line.replace("\t", " ").rpartition(" ")
        if not mark or not index.isascii() or not index.isdigit() or len(index) > 7 or int(index) in found:
            raise ValueError(f"line {number} is {line[:40]!r}")
        found[int(index)] = symbol.strip() or " "
    if not found or sorted(found) != list(range(len(found))):
        raise ValueError("its ids are not 0, 1, 2, ... without gaps")
    return [found[index] for index in range(len(found))]


def _pieces(data: bytes) -> list[str]:
    """The pieces of a SentencePiece model in order of their ids, and the blank."""
    reader = FieldReader(io.BytesIO(data))
    found = [reader.texts(end, (1,)).get(1, "") for number, end in reader.messages(len(data)) if number == 1]
    if not found:
        raise ValueError("it holds no pieces")
    return [*found, BLANKS[0]]
