"""A real Asterisk with the files of ``deploy/asterisk``: it plays recordings into calls, and their words are read.

Needs Asterisk 22.6 or newer: on the path, or in a system unpacked to the folder ``RECHKA_ASTERISK_ROOT`` (as root).
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from rechka.hub.load import load
from rechka.options import DecoderOptions
from rechka.server.keys import new_key
from rechka.testing import say
from rechka.testing.audio import wav_bytes

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("websockets", reason="the server extra is not installed")
serving = pytest.importorskip("rechka.testing.servers").serving

ROOT = Path(os.environ.get("RECHKA_ASTERISK_ROOT", "/"))
DEPLOY = Path(__file__).parents[2] / "deploy" / "asterisk"
pytestmark = pytest.mark.skipif(
    not (ROOT / "usr/sbin/asterisk").exists(),
    reason="no Asterisk here; RECHKA_ASTERISK_ROOT may name a system with one",
)
CLIENT = np.concatenate([say("привет мир", before_s=1, after_s=2), say("как дела", after_s=2)])
AGENT = np.concatenate([say("добрый день", before_s=3, after_s=6)])

SPEAKERS = """
[speak]
exten => _[a-z].,1,Answer()
 same => n,Playback({folder}/${{EXTEN}})
 same => n,Hangup()
"""
MODULES = "[modules]\nautoload = yes\n" + "".join(
    f"noload = {name}.so\n"
    for name in ("chan_iax2", "chan_mgcp", "chan_pjsip", "chan_unistim", "pbx_dundi")  # they would open ports
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Asterisk:
    """One that has its files in a folder of its own."""

    def __init__(self, server, key):
        self.folder = ROOT / "tmp" / f"rechka-asterisk-{os.getpid()}"
        self.inside = Path("/") / self.folder.relative_to(ROOT)
        for name in ("etc", "run", "spool", "log", "db"):
            (self.folder / name).mkdir(parents=True)
        places = {"run": "astrundir", "spool": "astspooldir", "log": "astlogdir", "db": "astdbdir", "etc": "astetcdir"}
        main = "[options]\nverbose = 3\n[directories]\n"
        main += "".join(f"{place} = {self.inside}/{name}\n" for name, place in places.items())
        dialplan = (DEPLOY / "extensions.conf").read_text() + SPEAKERS.format(folder=self.inside)
        dialplan = dialplan.replace("rechka.example.org", "127.0.0.1")
        dialplan = dialplan.replace(":9092", f":{server.service.settings.audiosocket_port}")
        dialplan = dialplan.replace(":8080", f":{server.port}")
        dialplan = dialplan.replace("[globals]\n", f"[globals]\nRECHKA_API_KEY={key}\n")
        dialplan = dialplan.replace("PJSIP/agent", "Local/agent@speak")
        client = (DEPLOY / "websocket_client.conf").read_text().replace("rk_...", key)
        client = client.replace("rechka.example.org:8080", f"127.0.0.1:{server.port}")
        files = {
            "asterisk.conf": main,
            "extensions.conf": dialplan,
            "websocket_client.conf": client,
            "modules.conf": MODULES,
            "logger.conf": "[logfiles]\nfull = notice,warning,error,verbose\n",
        }
        for name, text in files.items():
            (self.folder / "etc" / name).write_text(text)
        for name, samples in {"client": CLIENT, "agent": AGENT}.items():
            (self.folder / f"{name}.wav").write_bytes(wav_bytes(samples, 8000))
        into = [] if str(ROOT) == "/" else ["chroot", str(ROOT)]
        self.command = [*into, "/usr/sbin/asterisk", "-C", f"{self.inside}/etc/asterisk.conf"]
        self.process = subprocess.Popen([*self.command, "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while "fully booted" not in self.tell("core waitfullybooted"):
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def tell(self, command):
        """What its console says."""
        done = subprocess.run([*self.command, "-rx", command], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def close(self):
        self.tell("core stop now")
        self.process.kill()
        self.process.wait()

    def log(self):
        lines = (self.folder / "log" / "full").read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if "VERBOSE" in line or "ERROR" in line)[-9000:]


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    key = new_key("pbx", path)
    path.write_text(path.read_text().replace('"files"', '"history"'))  # it may see calls that came without a key
    return path, key


@pytest.fixture(scope="module")
def server(key):
    port = free_port()
    peers = ("127.0.0.1",)
    toy = load("toy", decoder=DecoderOptions(kind="auto"))  # one that takes hotwords
    with serving({"toy": toy}, audiosocket_port=port, audiosocket_peers=peers, keys_file=key[0]) as running:
        yield running


@pytest.fixture(scope="module")
def asterisk(server, key):
    running = Asterisk(server, key[1])
    yield running
    running.close()
    shutil.rmtree(running.folder)


def ask(server, path, key):
    request = urllib.request.Request(server.http + path, headers={"X-API-Key": key[1]})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def ended(asterisk, server, key, known):
    """The call that came beside the known ones, when it has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for call in ask(server, "/v1/calls", key)["data"]:
            if call["call"] not in known and call["state"] == "ended":
                return ask(server, f"/v1/calls/{call['call']}", key)
        time.sleep(0.2)
    raise AssertionError(asterisk.log())


def calls(server, key):
    return {call["call"] for call in ask(server, "/v1/calls", key)["data"]}


@pytest.mark.parametrize(
    ("way", "protocol"),
    [("audiosocket", "audiosocket"), ("announced", "audiosocket"), ("websocket", "chan_websocket")],
)
def test_a_caller_is_heard(asterisk, server, key, way, protocol):
    known = calls(server, key)
    asterisk.tell(f"channel originate Local/client@speak extension 100@rechka-{way}")
    call = ended(asterisk, server, key, known)
    assert call["protocol"] == protocol, asterisk.log()
    assert call["transcript"]["text"] == "привет мир как дела", asterisk.log()
    assert call["transcript"]["duration"] == pytest.approx(len(CLIENT) / 8000, abs=1.5)


def test_both_sides_of_a_call(asterisk, server, key):
    known = calls(server, key)
    asterisk.tell("channel originate Local/client@speak extension 100@rechka-both")
    call = ended(asterisk, server, key, known)
    assert call["tracks"] == ["client", "agent"]
    said = {"client": [], "agent": []}
    for segment in call["transcript"]["segments"]:
        said[segment["speaker"]].append(segment["text"])
    assert said == {"client": ["привет мир", "как дела"], "agent": ["добрый день"]}, asterisk.log()
    while "0 active calls" not in asterisk.tell("core show channels count"):  # no ear outlives its call
        time.sleep(0.2)
