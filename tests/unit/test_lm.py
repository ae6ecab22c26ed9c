"""Language models: every reader gives the same scores, and damaged files are refused with the line."""

from __future__ import annotations

import gzip
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from rechka.decoding.arpa import read_arpa
from rechka.decoding.kenlm_file import read_vocabulary
from rechka.decoding.lm import LN10, KenLm, LanguageModel, NgramLm, load_lm
from rechka.decoding.ngram_file import save_ngrams
from rechka.errors import BadLanguageModel, MissingExtra

DATA = Path(__file__).parents[1] / "data"
BIGRAM = DATA / "tone" / "lm.arpa"
TRIGRAM = DATA / "decoding" / "trigram.arpa"
BINARIES = sorted((DATA / "decoding").glob("*.bin"))
SENTENCES = ["да", "нет да нет", "алло да да нет", "незнакомое слово да", "да нет незнакомое да нет алло да", ""]


def score(lm: LanguageModel, sentence: str) -> float:
    state, total = lm.start(), 0.0
    for word in sentence.split():
        logp, state = lm.score(state, word)
        total += logp
    return total + lm.end(state)


def test_backing_off_by_hand(tmp_path: Path) -> None:
    text = """\\data\\
ngram 1=5
ngram 2=2
ngram 3=1

\\1-grams:
-1.5\t<unk>
-9\t<s>\t-0.5
-1\t</s>
-0.8\tа\t-0.25
-0.9\tб\t-0.125

\\2-grams:
-0.2\t<s> а\t-0.0625
-0.3 а б

\\3-grams:
-0.05\t<s> а б

\\end\\
"""
    (tmp_path / "m.arpa").write_text(text, encoding="utf-8")
    lm = load_lm(tmp_path / "m.arpa")
    assert lm.order == 3
    assert list(lm.words or []) == ["а", "б"]
    first, after = lm.score(lm.start(), "а")
    assert first == pytest.approx(-0.2 * LN10)
    assert lm.score(after, "б")[0] == pytest.approx(-0.05 * LN10)
    assert lm.score(after, "а")[0] == pytest.approx((-0.0625 - 0.25 - 0.8) * LN10)
    assert lm.score(after, "в")[0] == pytest.approx((-0.0625 - 0.25 - 1.5) * LN10)
    assert lm.end(lm.score(after, "б")[1]) == pytest.approx((0.0 - 0.125 - 1) * LN10)
    assert "а" in lm
    assert "в" not in lm
    assert "<s>" not in lm


@pytest.mark.parametrize("path", [BIGRAM, TRIGRAM], ids=lambda path: path.name)
def test_scores_are_those_of_kenlm(path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    ours, theirs = load_lm(path), kenlm.Model(str(path))
    words = [*(ours.words or []), "неслыханное"]
    rng = np.random.default_rng(0)
    for _ in range(200):
        sentence = " ".join(words[i] for i in rng.integers(0, len(words), rng.integers(0, 9)))
        assert score(ours, sentence) == pytest.approx(theirs.score(sentence) * LN10, abs=1e-4)
    wrapped = KenLm(path)
    assert score(wrapped, "да нет") == pytest.approx(score(ours, "да нет"), abs=1e-4)
    assert wrapped.order == ours.order
    assert words[0] in wrapped
    assert words[-1] not in wrapped


@pytest.mark.parametrize("path", [BIGRAM, TRIGRAM], ids=lambda path: path.name)
def test_the_compact_file_holds_the_same(path: Path, tmp_path: Path) -> None:
    ngrams = read_arpa(path)
    save_ngrams(tmp_path / "m.rlm", ngrams)
    exact, compact = NgramLm(ngrams), load_lm(tmp_path / "m.rlm")
    assert list(compact.words or []) == list(exact.words)
    rng = np.random.default_rng(1)
    words = [*exact.words, "неслыханное"]
    for _ in range(100):
        sentence = " ".join(words[i] for i in rng.integers(0, len(words), rng.integers(0, 9)))
        assert score(compact, sentence) == pytest.approx(score(exact, sentence), abs=0.02)


def test_gzipped(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(BIGRAM.read_bytes()))
    packed, plain = load_lm(tmp_path / "lm.arpa.gz"), load_lm(BIGRAM)
    for sentence in SENTENCES:
        assert score(packed, sentence) == score(plain, sentence)


def test_words_of_kenlm_binaries() -> None:
    assert BINARIES
    for path in BINARIES:
        words = read_vocabulary(path)
        assert words is None if "bare" in path.name else set(words) == {"<s>", "</s>", "<unk>", *load_lm(TRIGRAM).words}
    assert read_vocabulary(BIGRAM) is None


def test_kenlm_binaries() -> None:
    pytest.importorskip("kenlm")
    exact = load_lm(TRIGRAM)
    for path in BINARIES:
        lm = load_lm(path)
        assert isinstance(lm, KenLm)
        assert (lm.words is None) == ("bare" in path.name)
        for sentence in SENTENCES:
            assert score(lm, sentence) == pytest.approx(score(exact, sentence), abs=1e-4)


def test_kenlm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(MissingExtra, match=r"rechka\[lm\]"):
        load_lm(BINARIES[0])


def test_damaged_kenlm_binary(tmp_path: Path) -> None:
    pytest.importorskip("kenlm")
    (tmp_path / "cut.bin").write_bytes(BINARIES[0].read_bytes()[:500])
    with pytest.raises(BadLanguageModel):
        load_lm(tmp_path / "cut.bin")


BROKEN = {
    "not an ARPA file": ("hello\nworld\n", 2),
    "no counts": ("\\data\\\n\n\\1-grams:\n", 3),
    "ends in the header": ("\\data\\\nngram 1=3\n", 2),
    "wrong order": ("\\data\\\nngram 2=3\n\\2-grams:\n", 2),
    "not a number": ("\\data\\\nngram 1=2\n\\1-grams:\n-1 <s>\nabc </s>\n\\end\\\n", 5),
    "nan": ("\\data\\\nngram 1=2\n\\1-grams:\n-1 <s>\nnan </s>\n\\end\\\n", 5),
    "above zero": ("\\data\\\nngram 1=2\n\\1-grams:\n-1 <s>\n0.5 </s>\n\\end\\\n", 5),
    "too many words": ("\\data\\\nngram 1=2\n\\1-grams:\n-1 <s>\n-1 </s> x y z\n\\end\\\n", 5),
    "word twice": ("\\data\\\nngram 1=3\n\\1-grams:\n-1 <s>\n-1 </s>\n-1 <s>\n\\end\\\n", 6),
    "more than told": ("\\data\\\nngram 1=1\n\\1-grams:\n-1 <s>\n-1 </s>\n\\end\\\n", 5),
    "fewer than told": ("\\data\\\nngram 1=3\n\\1-grams:\n-1 <s>\n-1 </s>\n\\end\\\n", 6),
    "no end": ("\\data\\\nngram 1=2\n\\1-grams:\n-1 <s>\n-1 </s>\n", 5),
    "unknown word": (
        "\\data\\\nngram 1=2\nngram 2=1\n\\1-grams:\n-1 <s> 0\n-1 </s>\n\\2-grams:\n-1 <s> x\n\\end\\\n",
        8,
    ),
    "huge count": ("\\data\\\nngram 1=99999999999999\n\\1-grams:\n-1 <s>\n", 4),
    "endless line": ("\\data\\\nngram 1=2\n\\1-grams:\n-1 " + "x" * 70000, 4),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_are_told_with_their_line(what: str, tmp_path: Path) -> None:
    text, line = BROKEN[what]
    (tmp_path / "b.arpa").write_text(text, encoding="utf-8")
    with pytest.raises(BadLanguageModel, match=rf"line {line}: "):
        load_lm(tmp_path / "b.arpa")


def test_other_damage(tmp_path: Path) -> None:
    (tmp_path / "a.arpa").write_bytes(BIGRAM.read_bytes().replace("день".encode(), b"\xff\xfe", 1))
    with pytest.raises(BadLanguageModel, match="not UTF-8"):
        load_lm(tmp_path / "a.arpa")
    (tmp_path / "b.arpa.gz").write_bytes(gzip.compress(BIGRAM.read_bytes())[:2000])
    with pytest.raises(BadLanguageModel):
        load_lm(tmp_path / "b.arpa.gz")
    (tmp_path / "c.arpa").write_bytes(b"")
    with pytest.raises(BadLanguageModel):
        load_lm(tmp_path / "c.arpa")
    with pytest.raises(BadLanguageModel, match="cannot open"):
        load_lm(tmp_path / "absent.arpa")
    text = "\\data\\\nngram 1=2\nngram 2=1\nngram 3=1\n\\1-grams:\n-1 <s> 0\n-1 </s>\n\\2-grams:\n-1 <s> <s>\n"
    (tmp_path / "d.arpa").write_text(text + "\\3-grams:\n-1 </s> <s> <s>\n\\end\\\n", encoding="utf-8")
    with pytest.raises(BadLanguageModel, match="no n-gram of their own"):
        load_lm(tmp_path / "d.arpa")


def test_probabilities_sum_to_one() -> None:
    lm = load_lm(TRIGRAM)
    words = [*(lm.words or []), "<unk>"]
    for sentence in SENTENCES:
        state = lm.start()
        for word in sentence.split():
            state = lm.score(state, word)[1]
        total = sum(math.exp(lm.score(state, word)[0]) for word in words) + math.exp(lm.end(state))
        assert total == pytest.approx(1.0, abs=0.02)
