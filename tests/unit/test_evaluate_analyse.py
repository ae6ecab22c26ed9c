"""Reports: groups, paired comparison, frequent errors, silence, delays, and a page that hostile texts cannot break."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rechka.cli.main import main
from rechka.errors import UsageError
from rechka.evaluate import analyse
from rechka.evaluate.hear import Heard, Loudness, Run, hear, judged
from rechka.evaluate.manifest import Record
from rechka.evaluate.report import aligned, write_report
from rechka.testing import say, toy_asr
from rechka.types import Word


def item(reference: str, text: str, number: int = 0, **values: object) -> Heard:
    """A recording, as if it had been heard."""
    extra = values.pop("extra", {})
    record = Record(Path(f"{number}.wav"), reference, speaker=values.pop("speaker", None), extra=extra)
    return judged(record, text, **{"seconds": 3.0, **values})


def run(name: str, texts: list[str], references: list[str]) -> Run:
    """A run over numbered recordings, one speaker each."""
    pairs = enumerate(zip(references, texts, strict=True))
    return Run(name, tuple(item(ref, text, i, speaker=f"s{i}") for i, (ref, text) in pairs), 1.0)


def test_the_better_of_two_models_is_told_and_chance_is_not_taken_for_skill() -> None:
    references = ["один два три четыре"] * 40
    wrong, right = run("wrong", ["один два три пять"] * 40, references), run("right", references, references)
    found = analyse.compare(wrong, right)
    assert found.difference == pytest.approx(0.25)
    assert found.interval == pytest.approx((0.25, 0.25))
    assert found.probability == 1.0
    assert found.verdict.startswith("right is better than wrong")
    assert analyse.compare(right, wrong).verdict.startswith("right is better than wrong")
    half = ["один два три пять", "один два три четыре"] * 20
    other = analyse.compare(run("a", half, references), run("b", half[::-1], references))
    assert "no difference" in other.verdict
    assert other.interval[0] < 0 < other.interval[1]


def test_pairs_stay_together_in_the_bootstrap() -> None:
    """Recordings differ wildly in difficulty, one model is always one word better: unpaired intervals would overlap."""
    rng = np.random.default_rng(0)
    references = ["а б в г д е ж з и к"] * 60
    errors = rng.integers(1, 9, 60)
    first = run(
        "a", [" ".join(["х"] * k + ref.split()[k:]) for k, ref in zip(errors, references, strict=True)], references
    )
    second = run(
        "b",
        [" ".join(["х"] * (k - 1) + ref.split()[k - 1 :]) for k, ref in zip(errors, references, strict=True)],
        references,
    )
    found = analyse.compare(first, second)
    assert found.difference == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.1, 0.1))


def test_runs_of_other_recordings_are_not_compared() -> None:
    with pytest.raises(UsageError, match="same recordings"):
        analyse.compare(run("a", ["да"], ["да"]), run("b", ["да", "да"], ["да", "да"]))


@pytest.mark.parametrize(
    ("value", "name"), [(1.0, "under 2 s"), (2.0, "2 to 5 s"), (7.0, "5 to 10 s"), (99.0, "over 10 s"), (None, None)]
)
def test_buckets(value: float | None, name: str | None) -> None:
    assert analyse.bucket(value, (2.0, 5.0, 10.0), "s") == name


def test_tables_have_rows_in_order_and_only_where_there_are_several() -> None:
    heard = [
        item("да", "да", 0, seconds=30.0, extra={"domain": "bank"}),
        item("да", "нет", 1, seconds=1.0, extra={"domain": "taxi"}),
        item("да", "да", 2, seconds=3.0, extra={"domain": "taxi"}),
    ]
    found = analyse.tables(heard)
    assert list(found) == ["domain", "duration"]
    assert list(found["duration"]) == ["under 2 s", "2 to 5 s", "20 to 60 s"]
    assert {name: score.wer for name, score in found["domain"].items()} == {"bank": 0.0, "taxi": 0.5}


def test_frequent_errors_are_counted_and_ordered() -> None:
    heard = [item("раз два", "раз три"), item("раз два", "раз три"), item("раз", "раз алло"), item("раз да", "раз")]
    assert analyse.frequent_errors(heard) == {
        "substitute": [("два -> три", 2)], "delete": [("да", 1)], "insert": [("алло", 1)],
    }  # fmt: skip


def test_words_out_of_silence() -> None:
    heard = [item("", "субтитры сделал", 0, seconds=30.0), item("", "", 1, seconds=30.0), item("да", "да", 2)]
    assert analyse.silence(heard) == {"recordings": 2, "with_words": 0.5, "words_per_minute": 2.0}
    assert analyse.silence([item("да", "да")]) is None
    assert analyse.overall([item("", "а")]) is None


def test_raw_rate_counts_case_and_marks() -> None:
    heard = [item("Да, это я.", "да это я")]
    assert analyse.raw_wer(heard) == pytest.approx(2 / 3)
    assert analyse.overall(heard).wer == 0  # type: ignore[union-attr]


def test_confidence_is_judged_word_by_word() -> None:
    words = (Word("раз", 0, 1, 0.9), Word("три", 1, 2, 0.1))
    found = analyse.confidences([item("раз два", "раз три", words=words)])
    assert found is not None
    assert (found["num_words"], found["accuracy"], found["auc"]) == (2, 0.5, 1.0)


def test_confidence_of_a_word_with_a_hyphen_is_that_of_its_parts() -> None:
    words = (Word("Кто-то", 0, 1, 0.9), Word("—", 1, 1, 0.2), Word("пришёл", 1, 2, 0.8))
    found = analyse.confidences([item("кто-то пришёл", "Кто-то — пришёл", words=words)])
    assert found is not None
    assert (found["num_words"], found["accuracy"]) == (3, 1.0)


@pytest.mark.parametrize("snr", [10.0, 20.0, 30.0])
def test_loudness_finds_the_ratio_of_bursts_over_noise(snr: float) -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.003, 80000)
    talking = (np.arange(80000) // 4000) % 2 == 0
    speech = np.where(talking, rng.normal(0, 0.003 * 10 ** (snr / 20), 80000), 0)
    meter = Loudness()
    for part in np.array_split((noise + speech).astype(np.float32), 77):
        meter.push(part, 8000)
    assert meter.snr_db == pytest.approx(snr, abs=2.0)


def test_loudness_of_silence_is_unknown() -> None:
    meter = Loudness()
    meter.push(np.zeros(8000, np.float32), 8000)
    assert meter.snr_db is None


def test_live_and_files_hear_the_same_and_delays_are_short(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", say("один два три", before_s=0.5, after_s=0.5), 8000)
    records = [Record(tmp_path / "a.wav", "один два три"), Record(tmp_path / "missing.wav", "да")]
    files, live = hear(toy_asr(), records), hear(toy_asr(), records, live=True)
    assert [one.text for one in files.heard] == [one.text for one in live.heard] == ["один два три", ""]
    assert [one.error is None for one in live.heard] == [True, False]
    delays = live.heard[0].delays
    assert len(delays) == 3
    assert all(0 <= delay < 1.5 for delay in delays)
    assert files.heard[0].delays == ()


class Checker(HTMLParser):
    """Collects tags, and text outside of styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_of_names_and_texts_that_are_no_unicode(tmp_path: Path) -> None:
    record = Record(tmp_path / "a\udcff.wav", "да \ud83d", speaker="\udc80")
    page = tmp_path / "report.html"
    write_report(page, [Run("m", (judged(record, "нет", seconds=1.0),), 2.0)], [], "t")
    assert "a\\udcff.wav" in page.read_text("utf-8")


def test_the_page_shows_errors_and_escapes_everything(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    name = f'm"{evil}'
    heard = tuple(
        judged(
            Record(tmp_path / f"{n} 'x\".wav", f"да {evil}", speaker=evil, extra={"domain": evil + str(n % 2)}),
            "нет <b>", words=(Word("нет", 0, 1, 0.4),), seconds=float(n), snr_db=float(10 * n), delays=(0.3,),
        )
        for n in range(1, 5)
    )  # fmt: skip
    page = tmp_path / "report.html"
    write_report(page, [Run(name, heard, 2.0), Run("two", heard, 1.0)], [], evil)
    text = page.read_text("utf-8")
    checker = Checker()
    checker.feed(text)
    assert not checker.tags & {"script", "b", "iframe", "link", "img"}
    assert evil in " ".join(checker.words)
    assert not re.search(r"https?://", text)
    assert {"svg", "audio", "table", "del"} <= checker.tags
    assert text.count("<audio") == 4  # each recording once, below it what both models made of it
    assert text.count('<span class="pale">two: ') == 4
    assert text.count('">two</text>') == 2  # the keys of two charts


def test_alignment_in_colour() -> None:
    shown = aligned(item("раз два четыре", "раз три четыре пять"))
    assert shown == 'раз <span class="sub">три <del>два</del></span> четыре <span class="ins">пять</span>'
    assert aligned(item("раз два", "раз")) == 'раз <span class="del">два</span>'


def test_the_verb_prints_scores_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = []
    for number, text in enumerate(["да", "нет", "один два"]):
        soundfile.write(tmp_path / f"{number}.wav", say(text), 8000)
        lines.append({"audio_filepath": f"{number}.wav", "text": text.replace("два", "три"), "speaker": f"s{number}"})
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    page = tmp_path / "r.html"
    assert main(["evaluate", "toy", str(manifest), "--report", str(page)]) == 0
    assert "WER 25.0 %" in capsys.readouterr().out
    assert "1 of 2 words" in page.read_text("utf-8")
    assert main(["evaluate", "toy", "toy", str(manifest), "--live", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["runs"][0]["score"]["wer"] == 0.25
    assert value["runs"][0]["delays"]["words"] == 4
    assert value["comparisons"][0]["difference"] == 0
    assert main(["evaluate", "toy"]) == 2
    assert "at least one manifest" in capsys.readouterr().err
    assert main(["evaluate", "toy", str(manifest), "--report", str(tmp_path / "no" / "r.html")]) == 1


def test_an_unreadable_recording_is_counted_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "a.wav", say("да"), 8000)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    lines = [{"audio_filepath": f"{name}.wav", "text": "да"} for name in "ab"]
    manifest = tmp_path / "test.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert main(["evaluate", "toy", str(manifest), "--json"]) == 1
    [found] = json.loads(capsys.readouterr().out)["runs"]
    assert found["score"]["wer"] == 0.5
    assert [Path(failed["audio"]).name for failed in found["failed"]] == ["b.wav"]
