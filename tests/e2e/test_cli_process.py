"""The command line as a process: start-up, pipes, signals, a terminal."""

import errno
import json
import os
import pty
import signal
import subprocess
import sys
import wave

import numpy as np
import pytest

from rechka.testing import say

RECHKA = [sys.executable, "-c", "from rechka.cli.main import run; run()"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a short and a long recording of tone speech."""
    folder = tmp_path_factory.mktemp("cli")
    for name, samples in {
        "call.wav": say("добрый день", before_s=0.5, after_s=0.8),
        "long.wav": np.tile(say("добрый день", before_s=0.5, after_s=1.5), 40),
    }.items():
        with wave.open(str(folder / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
    return folder


@pytest.fixture
def options(place):
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "RECHKA_DEBUG")}
    return {"cwd": place, "env": {**env, "RECHKA_HOME": str(place / "home"), "TERM": "xterm", "COLUMNS": "80"}}


def on_terminal(args, options, *, stdin=None, stdout=None):
    """Run on a pseudo-terminal for stderr, and for stdout unless it is given; what the terminal showed, exit code."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        args, **options, stdin=stdin or theirs, stdout=theirs if stdout is None else stdout, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # so Linux says that the other side is closed
                raise
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return shown.decode(), process.wait(timeout=300)


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["transcribe", "--help"], ["train", "--help"]])
def test_start_up_imports_nothing_heavy(options, args):
    script = (
        "import sys\nfrom rechka.cli.main import main\n"
        f"main({args!r})\n"
        "heavy = {'torch', 'onnxruntime', 'numpy', 'scipy', 'soundfile', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], **options, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_transcribing_never_imports_torch(options):
    script = (
        "import sys\nfrom rechka.cli.main import main\n"
        "code = main(['transcribe', 'call.wav', '--model', 'toy'])\n"
        "sys.exit('imported torch' if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], **options, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "добрый день" in done.stdout


def test_stdin(options, place):
    with (place / "call.wav").open("rb") as file:
        done = subprocess.run(
            [*RECHKA, "transcribe", "-", "-m", "toy", "-f", "json"],
            **options,
            stdin=file,
            capture_output=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["text"] == "добрый день"


def test_stdin_may_be_a_pipe_that_cannot_seek(options, place):
    data = (place / "call.wav").read_bytes()
    done = subprocess.run(
        [*RECHKA, "transcribe", "-", "-m", "toy", "-f", "txt"], **options, input=data, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout.decode()) == (0, "добрый день\n")


def test_nothing_piped_in_is_wrong_usage(options):
    shown, code = on_terminal([*RECHKA, "transcribe", "-", "-m", "toy"], options)
    assert code == 2
    assert "nothing is piped into -" in shown


def test_a_reader_that_leaves_is_no_error_message(options):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*RECHKA, "transcribe", "call.wav", "-m", "toy"], **options, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_on_a_terminal_there_is_a_bar_with_the_speed_and_the_result_stays_pure(options, place):
    with (place / "result.txt").open("wb") as file:
        shown, code = on_terminal([*RECHKA, "transcribe", "long.wav", "-m", "toy", "-f", "txt"], options, stdout=file)
    assert code == 0
    assert "x real time" in shown
    assert "1 of 1" in shown
    assert (place / "result.txt").read_text(encoding="utf-8") == "добрый день\n" * 40


def test_a_file_name_that_is_no_text(options, place):
    name = b"\xff.wav"
    try:
        with open(os.path.join(os.fsencode(place), name), "wb") as file:
            file.write((place / "call.wav").read_bytes())
    except OSError:
        pytest.skip("this file system takes only names that are text")
    done = subprocess.run(
        [*RECHKA, "transcribe", name, "call.wav", "-m", "toy"], **options, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\udcff.wav" in done.stdout


def test_listen_prints_finals_where_there_is_no_terminal(options):
    done = subprocess.run(
        [*RECHKA, "listen", "--input", "call.wav", "-m", "toy"], **options, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().endswith("] добрый день\n")
    assert b"\x1b" not in done.stdout


def test_listen_rewrites_the_line_on_a_terminal(options):
    shown, code = on_terminal([*RECHKA, "listen", "--input", "call.wav", "-m", "toy"], options)
    assert code == 0
    assert "\r\x1b[K\x1b[1m" in shown, "the stable part is bold"
    assert "\x1b[2m" in shown, "the unstable part is dim"
    assert shown.rstrip().endswith("] добрый день")


def test_listen_ends_well_on_the_first_interrupt(options):
    process = subprocess.Popen(
        [*RECHKA, "listen", "--input", "long.wav", "-m", "toy", "--json"],
        **options,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    first = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    events = [first, *(json.loads(line) for line in out.splitlines())]
    assert (process.returncode, err) == (0, b"")
    assert events[0]["event"] == "speech_start"
    assert "final" in {event["event"] for event in events}, "the open phrase was finished"
    assert len([event for event in events if event["event"] == "final"]) < 40, "the rest was not played"
