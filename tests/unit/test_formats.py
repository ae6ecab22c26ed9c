"""Formats against hand-made transcripts, cues against their limits, files whole or not at all."""

import itertools
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rechka.errors import OutputError, UsageError
from rechka.formats import FORMATS, render, save
from rechka.formats.cues import MAX_CUE_S, MAX_LINE, MAX_LINES, MIN_CUE_S, cues
from rechka.formats.file import write_text
from rechka.formats.times import clock
from rechka.formats.txt import timed_line
from rechka.types import Segment, Transcript, Word


def words(text, start=0.0, each=0.4):
    return tuple(
        Word(word, start + i * each, start + i * each + each * 0.8, 0.9) for i, word in enumerate(text.split())
    )


def segment(text, start=0.0, **more):
    row = words(text, start)
    return Segment(text, start, row[-1].end if row else start, row, **more)


def transcript(*segments):
    return Transcript(tuple(segments), language="ru", model="toy", duration=10.0)


CALL = transcript(
    Segment("да", 1.2, 1.5, (Word("да", 1.2, 1.5, 0.98765),), "1", 0),
    Segment("нет <ок>", 1.4, 2.0, (Word("нет", 1.4, 1.6), Word("<ок>", 1.7, 2.0, 0.5)), "2", 1),
)
ONE = transcript(segment("добрый день"), segment("слушаю вас", 3.0))


def test_txt_is_one_phrase_a_line_with_the_speaker_if_there_is_one():
    assert render(ONE) == "добрый день\nслушаю вас\n"
    assert render(CALL, "txt") == "1: да\n2: нет <ок>\n"


def test_timed_line_counts_hours_only_when_there_are_any():
    assert timed_line(CALL.segments[0]) == "[00:01.200 -> 00:01.500] 1: да"
    assert timed_line(Segment("да", 3599.9996, 3601)) == "[01:00:00.000 -> 01:00:01.000] да"


def test_json_keeps_the_contract():
    value = json.loads(render(CALL, "json"))
    assert list(value) == ["model", "language", "duration", "text", "segments"]
    assert list(value["segments"][0]) == ["start", "end", "text", "channel", "speaker", "words", "labels"]
    assert value["segments"][0]["words"] == [{"word": "да", "start": 1.2, "end": 1.5, "confidence": 0.988}]
    assert "нет" in render(CALL, "json"), "letters are not escaped"


def test_srt():
    assert render(CALL, "srt") == (
        "1\n00:00:01,200 --> 00:00:02,200\n1: да\n\n2\n00:00:01,400 --> 00:00:02,400\n2: нет <ок>\n"
    )


def test_vtt_escapes_and_names_voices():
    assert render(CALL, "vtt") == (
        "WEBVTT\n\n00:00:01.200 --> 00:00:02.200\n<v 1>да\n\n00:00:01.400 --> 00:00:02.400\n<v 2>нет &lt;ок&gt;\n"
    )


def test_tsv_has_a_header_and_no_stray_tabs():
    odd = transcript(Segment("раз\tдва\nтри", 0.0, 1.0))
    assert render(odd, "tsv") == "start\tend\tspeaker\ttext\n0.000\t1.000\t\tраз два три\n"


def test_ctm_is_a_word_a_line_by_channel_and_start():
    assert render(CALL, "ctm", recording="my call") == (
        "my_call 1 1.200 0.300 да 0.988\nmy_call 2 1.400 0.200 нет NA\nmy_call 2 1.700 0.300 <ок> 0.500\n"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_silence_gives_a_valid_file(name):
    text = render(transcript(), name)
    assert text == {"vtt": "WEBVTT\n", "tsv": "start\tend\tspeaker\ttext\n"}.get(name, text)
    assert name == "json" or "-->" not in text


def test_unknown_format_names_the_known_ones():
    with pytest.raises(UsageError, match="txt, json, srt, vtt, tsv, ctm"):
        render(ONE, "docx")


def test_clock_rounds_once():
    assert clock(59.9996) == "00:01:00.000"
    assert clock(-0.0001) == "00:00:00.000"
    assert clock(360000) == "100:00:00.000"


def test_a_rewritten_text_takes_the_words_times():
    row = Segment("Добрый день.", 0.0, 2.0, words("добрый день"))
    number = Segment("25 рублей", 0.0, 2.7, words("двадцать пять рублей"))
    assert [cue.lines for cue in cues(transcript(row, number))] == [("Добрый день.",), ("25 рублей",)]
    assert cues(transcript(row))[0].end == pytest.approx(MIN_CUE_S)
    assert cues(transcript(number))[0].end == pytest.approx(2.7)


def test_long_phrases_become_even_cues():
    text = " ".join(["слово"] * 40)
    found = cues(transcript(segment(text)))
    assert " ".join(line for cue in found for line in cue.lines) == text
    sizes = [sum(map(len, cue.lines)) for cue in found]
    assert max(sizes) - min(sizes) <= 12, "no orphan at the end"


letters = st.text("абвгд", min_size=1, max_size=60)
phrase = st.tuples(
    st.lists(letters, min_size=1, max_size=25),
    st.floats(0, 100),
    st.lists(st.floats(0, 3), min_size=25, max_size=25),
    st.integers(0, 1),
    st.booleans(),
)


def build(row):
    texts, time, lengths, channel, timed = row
    found, start = [], time
    for text, length in zip(texts, lengths, strict=False):
        found.append(Word(text, time, time + length))
        time += length
    return Segment(" ".join(texts), start, time, tuple(found) if timed else (), str(channel), channel)


@settings(max_examples=40)
@given(st.lists(phrase, max_size=6))
def test_cues_keep_every_word_and_their_limits(rows):
    segments = [build(row) for row in rows]
    found = cues(transcript(*segments))
    assert [cue.start for cue in found] == sorted(cue.start for cue in found)
    for channel in (0, 1):
        mine = [cue for cue in found if cue.channel == channel]
        spoken = sorted((s for s in segments if s.channel == channel), key=lambda s: s.start)
        assert sorted(" ".join(line for c in mine for line in c.lines).split()) == sorted(
            " ".join(s.text for s in spoken).split()
        )
        for cue, following in itertools.pairwise(mine):
            assert cue.end <= following.start
        for cue in mine:
            assert cue.start <= cue.end
            assert len(cue.lines) <= MAX_LINES
            assert all(len(line) <= MAX_LINE - 3 or " " not in line for line in cue.lines)
            several = sum(len(line.split()) for line in cue.lines) > 1
            assert cue.end - cue.start <= MAX_CUE_S + 1e-6 or not several


@settings(max_examples=40)
@given(st.lists(phrase, max_size=4))
def test_subtitles_can_be_read_back(rows):
    text = render(transcript(*[build(row) for row in rows]), "srt")
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    assert [block[0] for block in blocks] == [str(i + 1) for i in range(len(blocks))]
    for block in blocks:
        assert re.fullmatch(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}", block[1])
        start, end = block[1].split(" --> ")
        assert start <= end
        assert 1 <= len(block[2:]) <= MAX_LINES


@pytest.mark.parametrize("name", FORMATS)
def test_save_takes_the_format_from_the_suffix(tmp_path, name):
    path = CALL.save(tmp_path / f"call.{name.upper()}")
    assert path.read_text(encoding="utf-8") == render(CALL, name, recording="call")
    assert os.listdir(tmp_path) == [path.name]


def test_save_wants_a_known_suffix(tmp_path):
    for name in ("call", "call.docx"):
        with pytest.raises(UsageError, match=r"\.srt"):
            save(CALL, tmp_path / name)


def test_save_into_a_missing_folder_says_so(tmp_path):
    with pytest.raises(OutputError, match="make the folder"):
        save(CALL, tmp_path / "no" / "call.txt")


def test_save_onto_a_folder_says_so_and_leaves_nothing(tmp_path):
    (tmp_path / "call.txt").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        save(CALL, tmp_path / "call.txt")
    assert os.listdir(tmp_path) == ["call.txt"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "call.txt"
    path.write_text("old")

    def no_room(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(OutputError, match="No space left"):
        save(CALL, path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["call.txt"]


def test_a_recording_whose_name_is_no_text_is_written_with_the_name_escaped(tmp_path):
    write_text(tmp_path / "call.ctm", render(CALL, "ctm", recording="call\udcff"))
    assert "call\\udcff " in (tmp_path / "call.ctm").read_text("utf-8")


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(CALL, tmp_path / "call.txt")
    assert os.listdir(tmp_path) == []


def test_save_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    save(ONE, tmp_path / "link.txt")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text(encoding="utf-8") == render(ONE)
