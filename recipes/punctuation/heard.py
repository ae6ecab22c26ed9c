"""Recordings as a model hears them, each word with its times and the mark that the written text has behind it.

    python recipes/punctuation/heard.py MANIFEST.jsonl --texts TEXTS [--model M] > heard.jsonl

TEXTS are lines ``name: text`` (Asterisk's prompts, .gz too) or ``( name "text" )`` (Festival); a recording's name is
its file's. Words are paired by alignment; a word that has no counterpart is not judged, nor is the one before it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from pathlib import Path

import rechka
from rechka.evaluate.manifest import read
from rechka.evaluate.wer import align
from rechka.text.spell import to_words
from rechka.text.word_hashes import folded
from rechka.train.punctuation.sentences import labelled

_LINE = re.compile(r'^\(\s*(\S+)\s+"(.*)"\s*\)$|^([\w/-]+):\s*(.+)$')


def texts_of(path: Path) -> dict[str, str]:
    """Texts by the names of their recordings."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    found = (_LINE.match(line.strip()) for line in content.decode("utf-8").splitlines())
    return {match[1] or match[3]: match[2] or match[4] for match in found if match}


def main() -> None:
    """Read the arguments and print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int, default=1000)
    given = parser.parse_args()
    texts, asr = texts_of(given.texts), rechka.load(given.model)
    left = 0
    for record in list(read(given.manifest))[: given.limit]:
        item = labelled(to_words(texts.get(record.audio.stem, "")))
        words = asr.transcribe(record.audio).words if item else ()
        if not item or not words:
            left += 1
            continue
        marks, cases = [-1] * len(words), [-1] * len(words)
        steps = align(item.words, [folded(word.text) for word in words])
        for number, (_, there, told) in enumerate(steps):
            after = steps[number + 1][0] if number + 1 < len(steps) else "equal"
            if there is not None and told is not None and after in ("equal", "substitute"):
                marks[told], cases[told] = item.marks[there], item.cases[there]
        timed = [(word.text, round(word.start, 3), round(word.end, 3)) for word in words]
        print(json.dumps({"words": timed, "marks": marks, "cases": cases}, ensure_ascii=False), flush=True)
    print(f"{left} recordings left out: no whole sentence is written of them, or nothing was heard", file=sys.stderr)


if __name__ == "__main__":
    main()
