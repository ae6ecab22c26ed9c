"""Parts of ``rechka listen`` that need no audio."""

import io
import sys

import numpy as np
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from rechka.cli.listen import PACKET_S, Screen, event_dict, fit, paced
from rechka.cli.main import main
from rechka.testing import say
from rechka.types import AudioChunk, Final, Partial, Segment, SpeechEnd, SpeechStart, Word


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=10))
def test_a_file_is_played_whole_in_small_packets_and_never_early(lengths):
    now = 0.0

    def sleep(seconds):
        nonlocal now
        now += seconds

    chunks, start = [], 0
    for length in lengths:
        samples = np.arange(start, start + length, dtype=np.float32)
        chunks.append((AudioChunk(samples, 8000, start), AudioChunk(-samples, 8000, start)))
        start += length
    heard = []
    for packet in paced(chunks, clock=lambda: now, sleep=sleep):
        assert now >= packet[0].end / 8000 - 1e-9
        assert len(packet[0].samples) <= PACKET_S * 8000
        assert packet[0].start == packet[0].samples[0], "the packet says where it stands"
        heard.append(packet[0].samples)
        np.testing.assert_array_equal(packet[1].samples, -packet[0].samples)
    np.testing.assert_array_equal(np.concatenate(heard), np.arange(start))
    assert now < start / 8000 + 1e-6, "and not later than needed"


@given(st.text("аб ", max_size=30), st.text("вг ", max_size=30), st.integers(3, 40))
def test_a_long_partial_keeps_its_end_within_the_line(stable, unstable, width):
    left, right = fit(stable, unstable, width)
    shown = left + right
    assert len(shown) <= width
    assert shown == stable + unstable or (shown[0] == "…" and (stable + unstable).endswith(shown[1:]))
    assert unstable.endswith(right.lstrip("…"))


def test_phrases_get_marks_when_they_are_over(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", say("как вас зовут", before_s=0.3, after_s=0.8), 8000)
    assert main(["listen", "--input", str(tmp_path / "a.wav"), "-m", "toy", "--punctuate"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("Как вас зовут?")


def test_events_as_json():
    segment = Segment("да", 0.12345, 1.0, (Word("да", 0.12345, 1.0, 0.5),))
    assert event_dict(SpeechStart(0.12345)) == {"event": "speech_start", "time": 0.123, "channel": 0}
    assert event_dict(SpeechEnd(1.0, 1)) == {"event": "speech_end", "time": 1.0, "channel": 1}
    assert event_dict(Partial("до", "брый", 0.12345)) == {
        "event": "partial",
        "stable": "до",
        "unstable": "брый",
        "start": 0.123,
        "channel": 0,
    }
    assert event_dict(Final(segment)) == {"event": "final", **segment.to_dict()}


def test_colours_are_left_out_when_asked(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    Screen(live=True).show(Partial("до", "брый", 0.0))
    assert sys.stdout.getvalue() == "\r\x1b[Kдобрый"
