"""Raw rates are jiwer's to the last digit: the same fractions of the same integers, whatever the texts hold."""

from __future__ import annotations

import json
from pathlib import Path

import jiwer
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rechka.cli.main import main
from rechka.evaluate import analyse
from rechka.evaluate.hear import judged
from rechka.evaluate.manifest import Record
from rechka.testing import say

words = st.sampled_from(["да", "Да", "да,", "ещё", "еще", "5", "пять", "—", "a", "x\u00a0y", "а\u0301", ""])
spaces = st.sampled_from([" ", "  ", "\t", " \n ", "\u00a0", "\u2003\u2003"])
texts = st.lists(st.tuples(words, spaces), max_size=8).map(lambda parts: "".join(word + space for word, space in parts))
anything = st.text(max_size=12)
pairs = st.lists(st.tuples(texts | anything, texts | anything), min_size=1, max_size=6)


@given(pairs)
def test_rates_of_texts_as_they_are_written(several: list[tuple[str, str]]) -> None:
    references, hypotheses = map(list, zip(*several, strict=True))
    heard = [judged(Record(Path(f"{n}.wav"), ref), hyp) for n, (ref, hyp) in enumerate(several)]
    theirs = jiwer.process_words(references, hypotheses)
    found = [item.raw[0] for item in heard]
    assert sum(part.length for part in found) == theirs.hits + theirs.substitutions + theirs.deletions
    assert sum(part.errors for part in found) == theirs.substitutions + theirs.deletions + theirs.insertions
    if any(part.length for part in found):
        assert analyse.raw_wer(heard) == theirs.wer
        assert analyse.raw_cer(heard) == jiwer.cer(references, hypotheses)
    else:  # jiwer calls the number of inserted words a rate; there is none
        assert analyse.raw_wer(heard) is None


@pytest.mark.parametrize(
    ("reference", "hypothesis", "rate"),
    [("да нет", "", 1.0), ("да", "да да да", 2.0), ("Да.", "да", 1.0), ("", "да", None), ("", "", None)],
)
def test_empty_texts_and_insertions(reference: str, hypothesis: str, rate: float | None) -> None:
    assert analyse.raw_wer([judged(Record(Path("a.wav"), reference), hypothesis)]) == rate


def test_the_verb_gives_the_same_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a manifest with capitals, marks, a silence in which words are heard, and thirds that no decimal holds."""
    said = ["да", "нет да", "один", "два"]
    written = ["Да!", "нет да", "", "два нет один два"]
    lines = []
    for number, (text, reference) in enumerate(zip(said, written, strict=True)):
        soundfile.write(tmp_path / f"{number}.wav", say(text), 8000)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "text": reference}))
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("\n".join(lines), "utf-8")
    assert main(["evaluate", "toy", str(manifest), "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["runs"]
    assert found["raw_wer"] == found["raw"]["wer"] == jiwer.wer(written, said)
    assert found["raw"]["cer"] == jiwer.cer(written, said)
    assert found["raw"]["words"] == 7
