"""The web page in a real browser: files, stereo, a fake microphone, hostile text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the server needs starlette")
import urllib.request

import rechka
from rechka.testing import say, toy_asr
from rechka.testing.servers import Running, serving

PROMPT = Path(__file__).parents[2] / "examples" / "prompt.wav"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """The toy by default; the embedded model for the microphone, whose tones a browser would bend."""
    with serving({"toy": toy_asr(), "rechka-mini": rechka.load("rechka-mini", threads=1)}) as running:
        yield running


def test_the_page_is_served_with_a_strict_policy_and_names_nothing_from_elsewhere(server: Running) -> None:
    with urllib.request.urlopen(server.http + "/") as answer:
        page = answer.read().decode("utf-8")
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    names = {
        "style.css",
        "app.js",
        "icon.svg",
        "audio.js",
        "view.js",
        "words.js",
        "formats.js",
        "session.js",
        "worklet.js",
    }
    for name in names:
        with urllib.request.urlopen(f"{server.http}/{name}") as answer:
            body = answer.read().decode("utf-8")
        assert "innerHTML" not in body, "text from a transcript would become markup"
        assert "https://" not in body.replace("http://www.w3.org", "")
    assert "//" not in page.replace("<!--", "")


@pytest.fixture
def browse(server: Running, tmp_path: Path) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    spoken, rate = soundfile.read(PROMPT)
    soundfile.write(tmp_path / "mic.wav", np.concatenate([spoken, np.zeros(3 * rate)]), rate)
    with playwright.sync_playwright() as driver:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={tmp_path / 'mic.wav'}%noloop"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        context = browser.new_context(locale="en-US", permissions=["microphone"], accept_downloads=True)
        page = context.new_page()
        page.set_default_timeout(60_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(server.http + "/")
        yield page
        assert not problems
        browser.close()


@pytest.mark.slow
def test_a_stereo_file_becomes_a_dialogue_that_plays_and_downloads(browse: Any, tmp_path: Path) -> None:
    page = browse
    left, right = say("один два", after_s=2.5), say("три", before_s=2.0)
    stereo = np.zeros((max(len(left), len(right)), 2), np.float32)
    stereo[: len(left), 0], stereo[: len(right), 1] = left, right
    soundfile.write(tmp_path / "call.wav", stereo, 8000)
    page.click(".more summary")
    page.check("#split")
    page.set_input_files("#file", tmp_path / "call.wav")
    page.locator("#state", has_text="Done").wait_for()
    said = page.locator(".talk .said")
    assert [said.nth(i).get_attribute("class") for i in range(said.count())] == ["said c0", "said c1"]
    assert page.locator(".word").all_inner_texts() == ["один", "два", "три"]
    with page.expect_download() as waiting:
        page.get_by_role("button", name="SRT").click()
    text = Path(waiting.value.path()).read_text("utf-8")
    assert "один два" in text
    assert "-->" in text
    page.locator(".word").nth(1).click()
    page.locator(".word.on").first.wait_for()


@pytest.mark.slow
def test_the_microphone_gives_words_while_one_speaks(browse: Any) -> None:
    page = browse
    page.locator("#model option", has_text="rechka-mini").wait_for(state="attached")
    page.select_option("#model", "rechka-mini")
    page.click("#mic")
    page.locator(".said", has_text="получения").first.wait_for()
    page.click("#mic")
    page.locator("#state", has_text="Done").wait_for()
    assert "получения" in page.inner_text("#text")
    page.click("#language")
    assert page.inner_text("#micText") == "Говорить"


@pytest.mark.slow
def test_text_is_never_markup(browse: Any) -> None:
    page = browse
    evil = '<img src=x onerror="window.hacked=1">'
    item = {
        "when": 0,
        "about": {"name": evil},
        "segments": [{"text": evil, "start": 0, "end": 1, "channel": 0, "words": []}],
    }
    page.evaluate("item => localStorage.setItem('rechka.past', JSON.stringify([item]))", item)
    page.reload()
    page.locator("#pastList button").first.click()
    assert evil in page.inner_text("#text")
    assert page.locator("#text img").count() == 0
    assert page.evaluate("window.hacked") is None
