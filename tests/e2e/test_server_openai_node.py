"""OpenAI's REST, server-sent events and Realtime API with OpenAI's own client for Node.js, unmodified."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rechka.server.keys import new_key
from rechka.testing import say
from rechka.testing.audio import wav_bytes

pytest.importorskip("starlette", reason="the server extra is not installed")
serving = pytest.importorskip("rechka.testing.servers").serving

CLIENT = Path(__file__).parents[1] / "clients" / "node"
pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
    pytest.mark.skipif(not (CLIENT / "node_modules").is_dir(), reason="npm ci was not run in tests/clients/node"),
]
TEXTS = ["привет мир", "как дела"]


def audio(sample_rate):
    pieces = [say(text, before_s=0.5, after_s=1.5, sample_rate=sample_rate) for text in TEXTS]
    return np.concatenate(pieces)


def drive(tmp_path, server, key, cert):
    (tmp_path / "a.wav").write_bytes(wav_bytes(audio(8000), 8000))
    (tmp_path / "a.pcm").write_bytes((np.clip(audio(24000), -1, 1) * 32767).astype("<i2").tobytes())
    asked = {
        "url": f"https://localhost:{server.port}/v1",  # the client's Realtime API knows no other
        "key": key,
        "wav": str(tmp_path / "a.wav"),
        "pcm": str(tmp_path / "a.pcm"),
    }
    return subprocess.run(
        ["node", "openai.mjs"], cwd=CLIENT, input=json.dumps(asked), capture_output=True, text=True, timeout=300,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(cert)},
    )  # fmt: skip


def test_the_client_for_node(tmp_path, certificate):
    key = new_key("node", tmp_path / "keys.toml")
    with serving(keys_file=tmp_path / "keys.toml", tls_cert=certificate[0], tls_key=certificate[1]) as server:
        done = drive(tmp_path, server, key, certificate[0])
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    text = " ".join(TEXTS)
    assert got["json"]["text"] == text
    assert got["srt"].startswith("1\n00:00:00,")
    assert [segment["text"] for segment in got["verbose"]["segments"]] == TEXTS
    assert [word["word"] for word in got["verbose"]["words"]] == text.split()
    assert "".join(event["delta"] for event in got["events"][:-1]) == got["events"][-1]["text"] == text
    assert got["models"] == ["toy"]
    assert (got["unknown"]["name"], got["unknown"]["status"]) == ("NotFoundError", 404)
    assert got["realtime"]["events"][:2] == ["session.created", "session.updated"]
    assert got["realtime"]["completed"] == TEXTS
    assert got["realtime"]["deltas"] == "".join(TEXTS)


def test_a_wrong_key_is_told(tmp_path, certificate):
    new_key("node", tmp_path / "keys.toml")
    with serving(keys_file=tmp_path / "keys.toml", tls_cert=certificate[0], tls_key=certificate[1]) as server:
        done = drive(tmp_path, server, "wrong", certificate[0])
    assert done.returncode == 1
    assert "AuthenticationError: 401" in done.stderr
