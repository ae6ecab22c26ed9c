"""The word list inside a KenLM binary file, which the ``kenlm`` package does not hand out.

Source: kenlm, lm/binary_format.cc and lm/vocab.cc, format version 5. A header of fixed size (magic text, test values,
order, flags), the n-gram counts, tables, and at the very end, if the file was built with them, all words, each followed
by a zero byte, ``<unk>`` first.
"""

from __future__ import annotations

import mmap
import os
import struct

from rechka.errors import BadLanguageModel

_MAGIC = b"mmap lm http://kheafield.com/code format version 5\n\0"
_SANITY = 88
"""Magic padded to 56 bytes, three floats, three uint32, one uint64."""
_FIXED = struct.Struct("<B3xfiB3xI")
"""Order, probing multiplier, model type, has-vocabulary flag, search version."""


def read_vocabulary(path: str | os.PathLike[str]) -> list[str] | None:
    """All words of a binary file, sorted, with ``<unk>``, ``<s>``, ``</s>``; None if it has none or is an ARPA file.

    Raises:
        BadLanguageModel: the file promises words but does not hold them.
    """
    with open(path, "rb") as file:
        head = file.read(_SANITY + _FIXED.size + 8)
        if not head.startswith(_MAGIC) or len(head) < _SANITY + _FIXED.size + 8:
            return None
        _, _, _, has_words, _ = _FIXED.unpack_from(head, _SANITY)
        if not has_words:
            return None
        (count,) = struct.unpack_from("<Q", head, _SANITY + _FIXED.size)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            begin = data.rfind(b"<unk>\0")
            text = data[begin:] if begin >= 0 else b""
    words = text.split(b"\0")
    if words.pop() != b"" or len(words) not in (count, count + 1):
        raise BadLanguageModel(f"language model {path}: expected {count} words at its end, found {len(words)}")
    return sorted({word.decode("utf-8", "replace") for word in words})
