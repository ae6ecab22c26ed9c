"""New sentences from old recordings: pieces of a few letters, joined in the middle of a letter that both pieces have.

    python recipes/embedded/mosaic.py plan features/voxforge voxforge/train.jsonl letters.npz texts.txt.gz:0.5 ... \
        --forbidden test.jsonl ... --hours 30 --out mosaics.jsonl
    python recipes/embedded/mosaic.py build mosaics.jsonl features/voxforge features/mosaics

Many people who read few sentences teach a model those sentences. Their sounds in other sentences do not. A mosaic keeps
to one session and those that sound most like it; every piece is brought to the mean spectrum of that session. Where a
longer run of the letters exists it is taken. ``plan`` needs what ``align.py`` found; ``build`` writes a feature store.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rechka.features import bands
from rechka.text.normalize import scoring
from rechka.train.store import BANDS_FILE, INDEX_FILE, Store
from rechka.train.text import Overlap, read_sentences, read_texts, select, training
from rechka.types import F32

LONGEST = 9
"""Letters of a piece at most, halves at its ends counted: longer runs would bring the sentences back."""
FADE = 3
"""Frames over which one piece goes over into the next."""
SILENCE = (18, 25)
"""Frames kept before the first letter and after the last."""
SLOWEST = 45
"""Frames between two letters of a word at most: more is a pause, or a wrong alignment."""
WORDS = (2, 12)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Corpus:
    """All recordings as one string, a line each, with a space at both ends of each.

    ``frame`` is where each character has its middle in the store, ``session`` whose it is; ``means`` (sessions, 15)
    are the mean log energies of the louder half of the frames.
    """

    text: str
    frame: Ints
    session: Ints
    names: list[str]
    means: F32
    bands: NDArray[np.float16]
    runs: dict[str, Ints]


def quietest(x: F32, low: int, high: int) -> int:
    """The quietest frame strictly between two."""
    if high - low < 2:
        return low
    return low + 1 + int(x[low + 1 : high].mean(axis=1).argmin())


def read_corpus(store: Store, sessions: dict[str, str], letters: Path, worst: float) -> Corpus:
    """The recordings of a store whose alignment can be believed."""
    with np.load(letters) as found:
        frames = np.split(found["frames"], np.cumsum(found["counts"])[:-1])
        aligned = {
            key: places
            for key, places, quality in zip(found["keys"].tolist(), frames, found["quality"], strict=True)
            if quality >= worst
        }
    texts, places, owners = [], [], []
    names: dict[str, int] = {}
    sums, counts = defaultdict(lambda: np.zeros(bands.BANDS)), defaultdict(int)
    for item in store.items:
        if item.key not in aligned:
            continue
        x, middle = store.read(item), aligned[item.key].astype(np.int64)
        for position, letter in enumerate(item.text):
            if letter == " ":
                middle[position] = quietest(x, int(middle[position - 1]), int(middle[position + 1]))
        session = names.setdefault(sessions[item.key], len(names))
        loud = x[x.mean(axis=1) >= np.median(x.mean(axis=1))]
        sums[session] += loud.sum(axis=0)
        counts[session] += len(loud)
        ends = [max(0, int(middle[0]) - SILENCE[0]), min(len(x) - 1, int(middle[-1]) + SILENCE[1])]
        texts.append(f" {item.text} \n")
        places.append(item.offset + np.array([ends[0], *middle, ends[1], ends[1]]))
        owners.append(np.full(len(item.text) + 3, session))
    text = "".join(texts)
    frame = np.concatenate(places)
    means = np.array([sums[i] / counts[i] for i in range(len(names))], np.float32)
    values = np.memmap(store.folder / BANDS_FILE, np.float16, "r").reshape(-1, bands.BANDS)
    return Corpus(text, frame, np.concatenate(owners), list(names), means, values, _runs(text, frame))


def _runs(text: str, frame: Ints) -> dict[str, Ints]:
    """Where each run of 2 to ``LONGEST`` characters begins."""
    broken = np.diff(frame, append=frame[-1]) > SLOWEST
    found: dict[str, list[int]] = defaultdict(list)
    for start in range(len(text)):
        for end in range(start + 1, min(start + LONGEST, len(text))):
            if text[end] == "\n" or text[start] == "\n" or (broken[end - 1] and " " not in text[end - 1 : end + 1]):
                break
            found[text[start : end + 1]].append(start)
    return {run: np.array(starts) for run, starts in found.items()}


class Planner:
    """Chooses pieces for sentences."""

    def __init__(self, corpus: Corpus, rng: np.random.Generator, company: tuple[int, int]) -> None:
        self._corpus, self._rng, self._company = corpus, rng, company
        self._distance = np.square(corpus.means[:, None] - corpus.means[None]).sum(-1)
        self._size = np.bincount(corpus.session, minlength=len(corpus.names)) / len(corpus.session)

    def plan(self, sentence: str) -> dict[str, Any] | None:
        """Home session and pieces (first frame in the store, frames, session); None where letters do not occur."""
        corpus, rng = self._corpus, self._rng
        home = int(rng.choice(len(corpus.names), p=self._size))
        near = np.zeros(len(corpus.names), bool)
        near[np.argsort(self._distance[home])[: rng.integers(self._company[0], self._company[1] + 1)]] = True
        target = f" {sentence} "
        at, parts, last = 0, [], -1
        while at < len(target) - 1:
            starts, length = self._longest(target, at, near)
            if not length:
                return None
            start = self._best(starts, last, home)
            first, end = int(corpus.frame[start]), int(corpus.frame[start + length - 1])
            if end - first < FADE:
                end = first + FADE
            parts.append([first - FADE // 2, end - first + FADE, int(corpus.session[start])])
            last, at = start + length - 1, at + length - 1
        frames = sum(part[1] - FADE for part in parts) + FADE
        return {"text": sentence, "home": home, "frames": frames, "parts": parts}

    def _longest(self, target: str, at: int, near: NDArray[np.bool_]) -> tuple[Ints, int]:
        """Beginnings of the longest run that continues the target: in the company of the home, else anywhere."""
        runs, session = self._corpus.runs, self._corpus.session
        anywhere: tuple[Ints, int] = (np.zeros(0, np.int64), 0)
        for length in range(min(LONGEST, len(target) - at), 1, -1):
            starts = runs.get(target[at : at + length])
            if starts is None:
                continue
            close = starts[near[session[starts]]]
            if len(close):
                return close, length
            if not anywhere[1]:
                anywhere = starts, length
        return anywhere

    def _best(self, starts: Ints, last: int, home: int) -> int:
        """The piece that fits best where the one before ends: spectrum at the joint, its session, the home session."""
        corpus = self._corpus
        if len(starts) > 40:
            starts = self._rng.choice(starts, 40, replace=False)
        session = corpus.session[starts]
        cost = 2.0 * (session != home) + self._rng.uniform(0, 1, len(starts))
        if last >= 0:
            before = corpus.bands[corpus.frame[last]].astype(np.float32) - corpus.means[corpus.session[last]]
            after = corpus.bands[corpus.frame[starts]].astype(np.float32) - corpus.means[session]
            cost = cost + np.abs(after - before).mean(axis=1) * 2.0 + 1.0 * (session != corpus.session[last])
        return int(starts[int(cost.argmin())])


def join(corpus_bands: NDArray[np.float16], means: F32, home: int, parts: Sequence[Sequence[int]]) -> F32:
    """(T, 15) the pieces one after another, at the home's mean spectrum, faded over ``FADE`` frames at each joint."""
    rise = (np.arange(1, FADE + 1, dtype=np.float32) / (FADE + 1))[:, None]
    out = np.zeros((sum(part[1] - FADE for part in parts) + FADE, bands.BANDS), np.float32)
    at = 0
    for number, (first, frames, session) in enumerate(parts):
        index = np.clip(np.arange(first, first + frames), 0, len(corpus_bands) - 1)
        piece = corpus_bands[index].astype(np.float32) - means[session] + means[home]
        if number:
            piece[:FADE] = rise * piece[:FADE] + (1 - rise) * out[at : at + FADE]
        out[at : at + frames] = piece
        at += frames - FADE
    return out


def sentences(sources: Sequence[str], forbidden: Sequence[Path], used: Sequence[Path], seed: int) -> Iterator[str]:
    """Training sentences of the sources (``FILE:SHARE``), mixed, none that a test holds, none that was used already."""
    rng = np.random.default_rng(seed)
    caught = Overlap(text for path in forbidden for text in read_texts(path))
    known = {scoring(text) for path in used for text in read_texts(path)}
    pools, shares = [], []
    for source in sources:
        path, _, share = source.rpartition(":")
        lines = [text for text in select(read_sentences(path)) if WORDS[0] <= text.count(" ") + 1 <= WORDS[1]]
        rng.shuffle(lines)
        pools.append(iter(lines))
        shares.append(float(share))
    chance = np.array(shares) / sum(shares)
    while True:
        sentence = next(pools[int(rng.choice(len(pools), p=chance))], None)
        if sentence is None:
            return
        target = training(sentence)
        if target not in known and not caught(sentence):
            known.add(target)
            yield target


def make_plan(options: argparse.Namespace) -> None:
    """Write one line per mosaic, the first line the sessions' means; report the pieces' length."""
    store = Store(options.store)
    sessions = {}
    for line in options.manifest.read_text("utf-8").splitlines():
        record = json.loads(line)
        sessions[f"{Path(record['feat_file']).name}:{record['offset']}"] = record["session"]
    corpus = read_corpus(store, sessions, options.letters, options.worst)
    planner = Planner(corpus, np.random.default_rng([options.seed, 1]), tuple(options.company))
    frames = num_letters = num_parts = num_homely = num = failed = 0
    part_file = options.out.with_suffix(".part")
    with open(part_file, "w", encoding="utf-8") as out:
        header = {"means": [[round(float(x), 4) for x in row] for row in corpus.means], "sessions": corpus.names}
        out.write(json.dumps(header, ensure_ascii=False) + "\n")
        for sentence in sentences(options.texts, options.forbidden, options.used, options.seed):
            record = planner.plan(sentence)
            if record is None:
                failed += 1
                continue
            out.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
            num += 1
            frames += record["frames"]
            num_letters += len(sentence) + 1
            num_parts += len(record["parts"])
            num_homely += sum(part[2] == record["home"] for part in record["parts"])
            if frames >= options.hours * 360_000:
                break
    part_file.replace(options.out)
    print(
        f"{num} mosaics, {frames / 360_000:.1f} h, {num_letters / num_parts:.2f} letters a piece, "
        f"{100 * num_homely / num_parts:.0f} % of the pieces by the home session; {failed} sentences left out; "
        f"inventory: {len(corpus.text)} letters of {len(corpus.names)} sessions"
    )


def build(options: argparse.Namespace) -> None:
    """Write the feature store of a plan."""
    lines = options.plan.read_text("utf-8").splitlines()
    header = json.loads(lines[0])
    means = np.array(header["means"], np.float32)
    values = np.memmap(options.store / BANDS_FILE, np.float16, "r").reshape(-1, bands.BANDS)
    options.out.mkdir(parents=True, exist_ok=True)
    offset = 0
    with (
        open(options.out / BANDS_FILE, "wb") as file,
        open(options.out / INDEX_FILE, "w", encoding="utf-8") as index,
    ):
        for number, line in enumerate(lines[1:]):
            record = json.loads(line)
            x = join(values, means, record["home"], record["parts"])
            file.write(x.astype(np.float16).tobytes())
            item = {"offset": offset, "frames": len(x), "text": record["text"],
                    "speaker": header["sessions"][record["home"]], "key": f"mosaic:{number}"}  # fmt: skip
            index.write(json.dumps(item, ensure_ascii=False) + "\n")
            offset += len(x)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("plan", help="choose sentences and pieces")
    verb.add_argument("store", type=Path)
    verb.add_argument("manifest", type=Path)
    verb.add_argument("letters", type=Path)
    verb.add_argument("texts", nargs="+", help="FILE:SHARE")
    verb.add_argument("--forbidden", type=Path, nargs="+", required=True, help="texts of all tests")
    verb.add_argument("--used", type=Path, nargs="*", default=[], help="texts that other sets say already")
    verb.add_argument("--hours", type=float, default=10.0)
    verb.add_argument("--company", type=int, nargs=2, default=(6, 16), help="sessions that a mosaic may take from")
    verb.add_argument("--worst", type=float, default=-1.0, help="recordings aligned worse are left out")
    verb.add_argument("--seed", type=int, default=1)
    verb.add_argument("--out", type=Path, required=True)
    verb.set_defaults(go=make_plan)
    verb = verbs.add_parser("build", help="feature store of a plan")
    verb.add_argument("plan", type=Path)
    verb.add_argument("store", type=Path)
    verb.add_argument("out", type=Path)
    verb.set_defaults(go=build)
    options = parser.parse_args()
    options.go(options)


if __name__ == "__main__":
    main()
