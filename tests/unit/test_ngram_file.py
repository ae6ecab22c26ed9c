"""The compact n-gram file: what is written is what is read, and damage is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from rechka.decoding.ngram_file import pack_ngrams, read_ngrams, write_ngrams
from rechka.errors import BadLanguageModel

WORDS = ["<unk>", "да", "<s>", "нет", "</s>", "алло"]
UNI = np.arange(6, dtype=np.int32)[:, None]
BI = np.array([[2, 1], [1, 3], [2, 5], [5, 1], [1, 4]], np.int32)
TRI = np.array([[2, 1, 3], [2, 5, 1], [2, 1, 4]], np.int32)


def arrays() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    logprobs = [-1 - np.arange(len(block), dtype=np.float32) / 7 for block in (UNI, BI, TRI)]
    backoffs = [-np.arange(len(block), dtype=np.float32) / 9 for block in (UNI, BI)]
    return [UNI, BI, TRI], logprobs, backoffs


def written(path: Path) -> Path:
    write_ngrams(path, WORDS, *arrays())
    return path


def test_every_ngram_comes_back(tmp_path: Path) -> None:
    ngrams = read_ngrams(written(tmp_path / "a.rlm"))
    assert ngrams.order == 3
    assert ngrams.words == sorted(WORDS)
    blocks, logprobs, backoffs = arrays()
    for row, logp, backoff in zip(blocks[0], logprobs[0], backoffs[0], strict=True):
        index = ngrams.words.index(WORDS[row[0]])
        assert (ngrams.logp[index], ngrams.backoff[index]) == (logp, backoff)
    for n in (2, 3):
        for at, row in enumerate(blocks[n - 1]):
            ids = [ngrams.words.index(WORDS[i]) for i in row]
            node = ids[0]
            for level, word in zip(ngrams.levels, ids[1:], strict=False):
                node = level.find(node, word)
                assert node >= 0
            level = ngrams.levels[n - 2]
            assert level.logp[node] == pytest.approx(logprobs[n - 1][at], abs=1e-6)
            if n == 2:
                assert level.backoff is not None
                assert level.backoff[node] == pytest.approx(backoffs[1][at], abs=1e-6)
    assert ngrams.levels[0].find(ngrams.words.index("нет"), ngrams.words.index("да")) == -1


def test_ids_above_sixteen_bits(tmp_path: Path) -> None:
    words = ["<s>", "</s>", "<unk>", *(f"w{i:06d}" for i in range(70_000))]
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, len(words), (5000, 2), dtype=np.int32), axis=0)
    logp = -rng.random(len(pairs), dtype=np.float32) * 6
    uni = np.arange(len(words), dtype=np.int32)[:, None]
    write_ngrams(tmp_path / "big.rlm", words, [uni, pairs], [np.full(len(words), -5.0), logp], [np.zeros(len(words))])
    ngrams = read_ngrams(tmp_path / "big.rlm")
    index = {word: i for i, word in enumerate(ngrams.words)}
    for (a, b), expected in list(zip(pairs, logp, strict=True))[::37]:
        at = ngrams.levels[0].find(index[words[a]], index[words[b]])
        assert abs(ngrams.levels[0].logp[at] - expected) < 0.1
    assert np.abs(np.sort(ngrams.levels[0].logp.values()) - np.sort(logp)).mean() < 0.01


def test_unknown_word_is_added() -> None:
    ngrams = pack_ngrams(["<s>", "</s>"], [np.array([[0], [1]], np.int32)], [np.array([-99, -1], np.float32)], [])
    assert ngrams.words == ["</s>", "<s>", "<unk>"]
    assert ngrams.logp[2] == -100


@pytest.mark.parametrize("change", ["missing context", "twice", "outside", "not finite", "word twice", "no </s>"])
def test_arrays_that_do_not_fit(tmp_path: Path, change: str) -> None:
    words, (blocks, logprobs, backoffs) = list(WORDS), arrays()
    if change == "missing context":
        blocks[2] = np.array([[3, 3, 1], [2, 5, 1], [2, 1, 4]], np.int32)
    elif change == "twice":
        blocks[1] = np.array([[2, 1], [2, 1], [2, 5], [5, 1], [1, 4]], np.int32)
    elif change == "outside":
        blocks[1] = blocks[1] + 4
    elif change == "not finite":
        logprobs[1][2] = np.nan
    elif change == "word twice":
        words[5] = "да"
    else:
        words[4] = "конец"
    with pytest.raises(BadLanguageModel):
        write_ngrams(tmp_path / "x.rlm", words, blocks, logprobs, backoffs)
    assert list(tmp_path.iterdir()) == []


def test_every_cut_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "a.rlm").read_bytes()
    for size in [*range(0, len(data), 97), len(data) - 1]:
        (tmp_path / "cut.rlm").write_bytes(data[:size])
        with pytest.raises(BadLanguageModel):
            read_ngrams(tmp_path / "cut.rlm")


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """What is accepted (a byte became itself, or a logp another logp) can be looked up, and gives numbers."""
    data = written(tmp_path / "a.rlm").read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    head = 16 + 3 * 8 + 8 + len("\n".join(WORDS).encode())  # most of the rest is books of probabilities
    for turn in range(300):
        broken = bytearray(data)
        broken[rng.integers(0, head if turn % 2 else len(data))] ^= rng.integers(1, 256)
        (tmp_path / "b.rlm").write_bytes(broken)
        try:
            ngrams = read_ngrams(tmp_path / "b.rlm")
        except BadLanguageModel:
            refused += 1
            continue
        assert ngrams.order == 3
        assert np.isfinite([*ngrams.logp, *ngrams.backoff]).all()
        pairs, triples = ngrams.levels
        for first in range(len(ngrams.words)):
            for second in range(len(ngrams.words)):
                node = pairs.find(first, second)
                assert -1 <= node < len(pairs.logp.values())
                if node >= 0:
                    assert np.isfinite(pairs.logp[node])
                    assert -1 <= triples.find(node, second) < len(triples.logp.values())
    print(refused)


def test_sizes_of_a_hostile_header(tmp_path: Path) -> None:
    head = struct.pack("<8sII4Q", b"RECHKALM", 1, 3, 1 << 24, (1 << 32) - 1, (1 << 32) - 1, 1 << 60)
    (tmp_path / "h.rlm").write_bytes(head + bytes(1000))
    with pytest.raises(BadLanguageModel, match="asks for"):
        read_ngrams(tmp_path / "h.rlm")
    with pytest.raises(BadLanguageModel, match="cannot open"):
        read_ngrams(tmp_path / "absent.rlm")
