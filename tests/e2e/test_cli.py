"""The command line with the toy model: what is printed where, what is written, which exit code."""

import json
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from rechka.cli.main import VERBS, main
from rechka.errors import ModelNotFound
from rechka.testing import say


def record(path, *channels):
    """A 16-bit wav at 8 kHz of one tone-speech array per channel."""
    length = max(map(len, channels))
    samples = np.stack([np.pad(channel, (0, length - len(channel))) for channel in channels], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty folder to work in, without the models of this machine."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECHKA_OFFLINE", "1")
    monkeypatch.delenv("RECHKA_DEBUG", raising=False)
    return work


@pytest.fixture
def cli(capsys):
    """Run ``rechka`` with these words; gives (exit code, stdout, stderr)."""

    def run(*args):
        code = main([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def transcribe(cli):
    return lambda *args: cli("transcribe", "--model", "toy", *args)


@pytest.fixture
def call(place):
    return record(place / "call.wav", say("добрый день", before_s=1, after_s=1))


@pytest.fixture
def bad(place):
    (place / "bad.wav").write_bytes(b"this is no audio at all, whatever its name says" * 20)
    return place / "bad.wav"


def phrases(text):
    """Timed lines without their times."""
    return [line.split("] ")[1] for line in text.splitlines()]


def test_phrases_are_printed_with_their_times(transcribe, call):
    code, out, err = transcribe(call)
    assert (code, err) == (0, "")
    start, end = out[1:].split("]")[0].split(" -> ")
    assert phrases(out) == ["добрый день"]
    assert start == "00:00.990", "the phrase starts within a frame of one second"
    assert "00:02.1" <= end <= "00:02.5"


@pytest.mark.parametrize("format_", ["txt", "json", "srt", "vtt", "tsv", "ctm"])
def test_every_format_on_stdout_is_what_the_library_renders(transcribe, call, format_):
    import rechka
    from rechka.formats import render

    code, out, _ = transcribe(call, "--format", format_)
    assert code == 0
    assert out == render(rechka.load("toy").transcribe(call), format_, recording="call")


def test_json_follows_the_contract(transcribe, call):
    value = json.loads(transcribe(call, "--format", "json")[1])
    assert {key: value[key] for key in ("model", "language", "text")} == {
        "model": "toy",
        "language": "ru",
        "text": "добрый день",
    }
    assert value["duration"] == pytest.approx(3.32, abs=0.002)
    assert [word["word"] for word in value["segments"][0]["words"]] == ["добрый", "день"]


def test_several_inputs_have_headings(transcribe, call, place):
    record(place / "other.wav", say("ещё", before_s=1, after_s=1))
    code, out, _ = transcribe("call.wav", "other.wav", "--format", "txt")
    assert code == 0
    assert out == "==> call.wav <==\nдобрый день\n==> other.wav <==\nещё\n"


def test_output_gets_a_file_per_input_and_their_names_are_printed(transcribe, call, place):
    code, out, _ = transcribe(call, "--output", "texts", "--format", "srt")
    assert (code, out) == (0, f"{Path('texts', 'call.srt')}\n")
    assert "добрый день" in (place / "texts/call.srt").read_text(encoding="utf-8")


def test_output_without_a_format_is_plain_text(transcribe, call, place):
    transcribe(call, "--output", "texts")
    assert (place / "texts/call.txt").read_text(encoding="utf-8") == "добрый день\n"


def test_a_folder_keeps_its_tree(transcribe, place):
    for name in ("calls/a.wav", "calls/monday/a.wav", "calls/.hidden/b.wav"):
        record(place / name, say("да", before_s=1, after_s=1))
    (place / "calls/notes.txt").write_text("no audio")
    code, out, _ = transcribe("calls", "--output", "texts")
    assert code == 0
    assert out.split() == [str(Path("texts/a.txt")), str(Path("texts/monday/a.txt"))]


def test_same_names_from_different_folders_do_not_overwrite_each_other(transcribe, place):
    record(place / "x/a.wav", say("раз", before_s=1, after_s=1))
    record(place / "y/a.wav", say("два", before_s=1, after_s=1))
    code, out, _ = transcribe("x/a.wav", "y/a.wav", "--output", "texts")
    assert code == 0
    texts = {name: Path(name).read_text(encoding="utf-8") for name in out.split()}
    assert texts == {str(Path("texts/x/a.wav.txt")): "раз\n", str(Path("texts/y/a.wav.txt")): "два\n"}


def test_a_quoted_pattern_and_the_same_file_twice(transcribe, call):
    code, out, _ = transcribe("*.wav", "call.wav", "./call.wav")
    assert (code, phrases(out)) == (0, ["добрый день"])


def test_one_bad_file_does_not_stop_the_others(transcribe, call, bad, place):
    record(place / "other.wav", say("ещё", before_s=1, after_s=1))
    code, out, err = transcribe("call.wav", "bad.wav", "nowhere.wav", "other.wav", "-o", "texts")
    assert code == 1
    assert sorted(os.listdir("texts")) == ["call.txt", "other.txt"]
    assert len(out.split()) == 2
    lines = err.splitlines()
    assert lines[0].startswith("rechka: error [audio.")
    assert "bad.wav" in lines[0]
    assert lines[1].startswith("rechka: error [audio.not_found]: nowhere.wav does not exist; ")
    assert lines[2] == "rechka: 2 of 4 inputs done, 2 failed"


def test_a_single_bad_file_exits_with_1(transcribe, bad):
    code, out, err = transcribe(bad)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


@pytest.mark.parametrize("names", [["nowhere.wav"], ["nowhere.wav", "*.mp3", "empty"]])
def test_nothing_there_exits_with_3_and_loads_no_model(cli, place, monkeypatch, names):
    monkeypatch.setattr("rechka.load", lambda *a, **k: pytest.fail("loaded a model for nothing"), raising=False)
    (place / "empty").mkdir()
    code, out, err = cli("transcribe", *names)
    assert (code, out) == (3, "")
    assert err.count("[audio.not_found]") == len(names)


def test_an_unknown_model_exits_with_3(cli, call):
    code, out, err = cli("transcribe", call, "--model", "no-such-model")
    assert (code, out) == (3, "")
    assert err.startswith(f"rechka: error [{ModelNotFound.code}]: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["transcribe"], "Missing argument"),
        (["transcribe", "call.wav", "--format", "docx"], "docx"),
        (["transcribe", "call.wav", "--threads", "0"], "--threads"),
        (["transcribe", "call.wav", "--device", "tpu"], "tpu"),
        (["transcribe", "call.wav", "--no-such-option"], "--no-such-option"),
        (["transcribe", "call.wav", "--hotword", "слово:много"], "--hotword"),
        (["transcribe", "call.wav", "--hotword", ":5"], "--hotword"),
        (["transcribe", "call.wav", "--output", "call.srt"], "names a folder"),
        (["transcribe", "call.wav", "--json", "--format", "srt"], "--json"),
        (["transcribe", "call.wav", "other.wav", "--format", "srt"], "--output"),
        (["no-such-verb"], "no-such-verb"),
    ],
)
def test_wrong_usage_exits_with_2_and_one_line(cli, call, args, said):
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert err.startswith("rechka: error [usage]: ")
    assert said in err
    assert err.count("\n") == 1


def test_an_input_is_never_overwritten(transcribe, place):
    record(place / "call.txt", say("да", before_s=1, after_s=1))
    before = (place / "call.txt").read_bytes()
    code, _, err = transcribe("call.txt", "--output", ".")
    assert code == 2
    assert "would be overwritten" in err
    assert (place / "call.txt").read_bytes() == before


def test_a_result_that_cannot_be_written_is_one_failure(transcribe, call, place):
    record(place / "other.wav", say("ещё", before_s=1, after_s=1))
    (place / "texts/call.txt").mkdir(parents=True)
    code, out, err = transcribe("call.wav", "other.wav", "-o", "texts")
    assert (code, out) == (1, f"{Path('texts', 'other.txt')}\n")
    assert "[output]" in err
    assert sorted(os.listdir("texts")) == ["call.txt", "other.txt"]


def test_output_onto_a_file_says_so(transcribe, call, place):
    (place / "texts").write_text("in the way")
    code, _, err = transcribe(call, "-o", "texts")
    assert code == 1
    assert "[output]: " in err


def test_a_full_disk_leaves_nothing_half_written(transcribe, call, place, monkeypatch):
    def no_room(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    code, _, err = transcribe(call, "-o", "texts")
    assert code == 1
    assert "No space left" in err
    assert os.listdir(place / "texts") == []


def test_json_lines_carry_results_and_errors(transcribe, call, bad):
    code, out, _ = transcribe("call.wav", "bad.wav", "--json")
    good, failed = (json.loads(line) for line in out.splitlines())
    assert code == 1
    assert good["input"] == "call.wav"
    assert good["transcript"]["text"] == "добрый день"
    assert failed["input"] == "bad.wav"
    assert set(failed["error"]) == {"code", "message", "remedy"}


def test_json_lines_name_the_files_that_were_written(transcribe, call):
    _, out, _ = transcribe("call.wav", "--json", "-o", "texts", "-f", "vtt")
    assert json.loads(out) == {"input": "call.wav", "output": str(Path("texts", "call.vtt"))}


def test_split_channels_are_speakers(transcribe, place):
    record(place / "two.wav", say("раз", before_s=1, after_s=2), say("два", before_s=2, after_s=1))
    assert transcribe("two.wav", "--channels", "split", "-f", "txt")[1] == "1: раз\n2: два\n"


@pytest.mark.parametrize(("encoding", "subtype"), [("alaw", "ALAW"), ("mulaw", "ULAW"), ("s16le", "PCM_16")])
def test_raw_telephone_audio(transcribe, place, encoding, subtype):
    soundfile.write(place / "leg.raw", say("добрый день", before_s=1, after_s=1), 8000, format="RAW", subtype=subtype)
    (place / "none.raw").touch()
    code, out, err = transcribe("none.raw", "leg.raw", "--encoding", encoding, "-f", "txt")
    assert (code, out) == (1, "==> leg.raw <==\nдобрый день\n")
    assert err.startswith("rechka: error [audio.empty]: ")
    assert "none.raw" in err


def test_options_that_no_input_can_satisfy_are_wrong_usage(transcribe, call):
    code, out, err = transcribe(call, "--hotword", "договор")
    assert (code, out) == (2, ""), "the toy's card wants greedy search, which knows no hotwords"
    assert "[usage]" in err


def test_hotwords_reach_the_recogniser(transcribe, call, monkeypatch):
    from rechka.recognizers import Asr

    seen = {}
    original = Asr.transcribe_many

    def spy(self, sources, **options):
        seen.update(options["hotwords"])
        return original(self, sources, **{**options, "hotwords": None})

    monkeypatch.setattr(Asr, "transcribe_many", spy)
    assert transcribe(call, "--hotword", "договор:8", "--hotword", "личный кабинет")[0] == 0
    assert seen == {"договор": 8.0, "личный кабинет": 5.0}


def test_a_fault_of_ours_is_told_in_short(cli, call, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("the floor gave way")

    monkeypatch.setattr("rechka.load", broken, raising=False)
    code, out, err = cli("transcribe", call)
    assert (code, out) == (4, "")
    assert err.startswith("rechka: error [internal]: RuntimeError: the floor gave way; ")
    assert "rechka doctor" in err
    assert "Traceback" not in err
    monkeypatch.setenv("RECHKA_DEBUG", "1")
    assert "Traceback" in cli("transcribe", call)[2]


def test_interrupt_exits_with_130(cli, call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("rechka.load", interrupted, raising=False)
    assert cli("transcribe", call)[:2] == (130, "")


def test_version_and_help(cli):
    import rechka

    assert cli("--version") == (0, f"rechka {rechka.__version__}\n", "")
    code, out, _ = cli("--help")
    assert code == 0
    assert "transcribe" in out
    for verb in ("transcribe", "listen"):
        assert cli(verb, "--help")[0] == 0


def test_no_words_at_all_show_the_help_and_are_wrong_usage(cli):
    code, out, err = cli()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: rechka")


def test_a_verb_that_is_not_there_does_not_break_the_others(cli, monkeypatch):
    monkeypatch.setattr("rechka.cli.main.VERBS", (*VERBS, "no_such_module"))
    assert cli("--help")[0] == 0


def test_the_named_formats_are_all_formats():
    from rechka.cli.transcribe import Format
    from rechka.formats import FORMATS

    assert [member.value for member in Format] == list(FORMATS)
