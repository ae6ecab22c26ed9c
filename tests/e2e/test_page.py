"""The web page in a real browser: files, dialogue, microphone, jobs, history, keys, keyboard, hostile text."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("starlette", reason="the server extra is not installed")
pytest.importorskip("uvicorn", reason="the server extra is not installed")

import rechka
from rechka.recognizers import Asr
from rechka.server.history import transcript_of
from rechka.testing import say, toy_asr
from rechka.testing.servers import Running, serving

PROMPT = Path(__file__).parents[2] / "examples" / "prompt.wav"
SAID = (Path(__file__).parents[2] / "examples" / "prompt.txt").read_text("utf-8").split()
PAGE = Path(rechka.__file__).parent / "server" / "page"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]  # fmt: skip
"""The network is cut off: no name but the server's own address can be found."""
EVIL = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def models() -> dict[str, Asr]:
    """The toy by default; the embedded model for the microphone, whose tones a browser would bend."""
    return {"toy": toy_asr(), "rechka-mini": rechka.load("rechka-mini", threads=1)}


@pytest.fixture(scope="module")
def server(models: dict[str, Asr], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(models, data_dir=tmp_path_factory.mktemp("data"), history="on", job_workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def plain(models: dict[str, Asr]) -> Iterator[Running]:
    """A server that keeps nothing."""
    with serving(models) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    heard = tmp_path_factory.mktemp("mic") / "mic.wav"
    spoken, rate = soundfile.read(PROMPT)
    soundfile.write(heard, np.concatenate([np.zeros(rate), spoken, np.zeros(20 * rate)]), rate)
    with playwright.sync_playwright() as driver:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={heard}%noloop"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium: Any) -> Iterator[Any]:
    """Opens pages; none of them may complain, or ask for anything that is not the server's."""
    problems: list[str] = []
    contexts = []

    def go(running: Running, *, allowed: str = "", locale: str = "en-US") -> Any:
        context = chromium.new_context(locale=locale, permissions=["microphone"], accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: problems.append(f"page: {error}"))
        page.on("console", lambda said: problems.append(said.text) if bad(said) else None)
        page.on("request", lambda asked: None if at_home(asked.url) else problems.append(asked.url))
        page.on("websocket", lambda socket: None if at_home(socket.url) else problems.append(socket.url))

        def bad(said: Any) -> bool:
            return said.type in ("error", "warning") and not (allowed and allowed in said.text)

        def at_home(url: str) -> bool:
            return url.startswith((f"{running.http}/", f"{running.ws}/", f"blob:{running.http}/", "data:"))

        page.goto(running.http + "/")
        return page

    yield go
    for context in contexts:
        context.close()
    assert not problems


def ask(running: Running, path: str, *, method: str = "GET", data: bytes | None = None) -> Any:
    request = urllib.request.Request(running.http + path, data=data, method=method)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read() or b"null")


def write(path: Path, *texts: str) -> Path:
    """A recording with a channel for each text, one after the other."""
    sounds = [say(text, before_s=0.5 + 2.0 * i, after_s=1.5) for i, text in enumerate(texts)]
    channels = np.zeros((max(map(len, sounds)), len(sounds)), np.float32)
    for i, sound in enumerate(sounds):
        channels[: len(sound), i] = sound
    soundfile.write(path, channels, 8000)
    return path


def settings(page: Any, **chosen: Any) -> None:
    page.locator("#more").evaluate("element => { element.open = true }")
    for name, value in chosen.items():
        if isinstance(value, bool):
            page.set_checked(f"#{name}", value)
        else:
            page.fill(f"#{name}", value)


def words(page: Any) -> list[str]:
    return list(page.locator("#text .word").all_inner_texts())


def done(page: Any) -> None:
    page.locator("#state", has_text=re.compile("Done|Готово")).wait_for()


def saved(page: Any, kind: str) -> str:
    with page.expect_download() as waiting:
        page.locator("#saves").get_by_role("button", name=kind, exact=True).click()
    assert waiting.value.suggested_filename.endswith(f".{kind.lower()}")
    return Path(waiting.value.path()).read_text("utf-8")


def test_the_page_is_served_with_a_strict_policy_and_names_nothing_from_elsewhere(server: Running) -> None:
    with urllib.request.urlopen(server.http + "/") as answer:
        page = answer.read().decode("utf-8")
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert 'data-server="jobs history texts"' in page
    assert "//" not in page.replace("<!--", "")
    scripts = ""
    for file in PAGE.iterdir():
        with urllib.request.urlopen(f"{server.http}/{file.name}") as answer:
            body = answer.read().decode("utf-8")
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in body, "text from a transcript would become markup"
        assert "https://" not in body.replace("http://www.w3.org", "")
        scripts += body
    spoken = set(re.findall(r'data-t(?:-label|-placeholder)?="(\w+)"', page)) | set(
        re.findall(r'\bt\("(\w+)"\)', scripts)
    )
    russian, english = re.split(r"\n  en: ", (PAGE / "words.js").read_text("utf-8"))
    for name in spoken:
        assert f"{name}: " in russian
        assert f"{name}: " in english


def test_the_page_knows_what_the_server_has(plain: Running, tmp_path: Path) -> None:
    def told(running: Running) -> str:
        with urllib.request.urlopen(running.http + "/") as answer:
            return str(re.findall(r'data-server="(.*?)"', answer.read().decode())[0])

    assert told(plain) == ""
    (tmp_path / "keys.toml").write_text(f'[[key]]\nname = "a"\nsha256 = "{"0" * 64}"\n')
    more: dict[str, Any] = {"data_dir": tmp_path, "keys_file": tmp_path / "keys.toml"}
    with serving(history="text-free", history_live=True, **more) as running:
        assert told(running) == "keys jobs history"
    with serving(history="on", history_live=True, **more) as running:
        assert told(running) == "keys jobs history texts live"


@pytest.mark.slow
def test_a_stereo_file_becomes_a_dialogue_that_plays_and_downloads(browse: Any, plain: Running, tmp_path: Path) -> None:
    page = browse(plain)
    settings(page, split=True)
    page.set_input_files("#file", write(tmp_path / "call.wav", "один два", "три"))
    done(page)
    said = page.locator(".talk .said")
    assert [said.nth(i).get_attribute("class") for i in range(said.count())] == ["said c0", "said c1"]
    assert words(page) == ["один", "два", "три"]
    assert saved(page, "TXT") == "Speaker 1: один два\nSpeaker 2: три\n"
    time_line = r"\d\d:\d\d:\d\d{0}\d\d\d --> \d\d:\d\d:\d\d{0}\d\d\d\n"
    srt = re.fullmatch(rf"1\n{time_line}(.*)\n\n2\n{time_line}(.*)\n\n".replace("{0}", ","), saved(page, "SRT"))
    assert srt is not None
    assert srt.groups() == ("Speaker 1: один два", "Speaker 2: три")
    vtt = re.fullmatch(rf"WEBVTT\n\n{time_line}(.*)\n\n{time_line}(.*)\n\n".replace("{0}", r"\."), saved(page, "VTT"))
    assert vtt is not None
    assert vtt.groups() == ("<v Speaker 1>один два", "<v Speaker 2>три")
    found = transcript_of(json.loads(saved(page, "JSON")))
    assert [(s.channel, s.text, len(s.words)) for s in found.segments] == [(0, "один два", 2), (1, "три", 1)]
    page.locator(".word").nth(1).click()
    page.locator(".word.on", has_text="два").wait_for()
    page.reload()
    page.locator("#recent button.item").click()
    assert words(page) == ["один", "два", "три"], "the browser remembers it"
    assert page.locator("#jobs, #history").filter(visible=True).count() == 0


@pytest.mark.slow
def test_the_microphone_gives_words_while_one_speaks(
    browse: Any, plain: Running, models: dict[str, Asr], tmp_path: Path
) -> None:
    """Finals are what the model makes of exactly the samples that were sent, and nearly what was said."""
    page = browse(plain)
    sent: list[bytes] = []
    got: list[dict[str, Any]] = []

    def listen(socket: Any) -> None:
        socket.on("framesent", lambda data: sent.append(data) if isinstance(data, bytes) else None)
        socket.on("framereceived", lambda data: got.append(json.loads(data)))

    page.on("websocket", listen)
    page.locator("#model option", has_text="rechka-mini").wait_for(state="attached")
    page.select_option("#model", "rechka-mini")
    page.click("#mic")
    page.locator(".said.now .unstable").first.wait_for()
    page.locator(".said:not(.now) .word").last.wait_for()
    assert page.get_attribute("#mic", "aria-pressed") == "true"
    page.keyboard.press("Escape")
    done(page)
    assert page.get_attribute("#mic", "aria-pressed") == "false"
    shown = " ".join(words(page)).split()
    soundfile.write(tmp_path / "sent.wav", np.frombuffer(b"".join(sent), "<i2"), 16000)
    again = models["rechka-mini"].transcribe(tmp_path / "sent.wav")
    assert shown == again.text.split()
    assert shown == [word for m in got if m["type"] == "final" for word in m["text"].split()]
    assert any(m["stable"] for m in got if m["type"] == "partial")
    assert len(set(shown) & set(SAID)) >= 0.5 * len(set(SAID)), "a fake microphone has gaps on a busy machine"
    assert page.locator("#play").is_enabled()
    page.click("#language")
    assert page.inner_text("#micText") == "Говорить"


@pytest.mark.slow
@pytest.mark.parametrize("rate", [48000, 44100, 8000])
def test_the_microphone_is_resampled_in_whatever_pieces_it_comes(browse: Any, plain: Running, rate: int) -> None:
    """A tone stays the same tone, and one above half the new rate is gone."""
    page = browse(plain)
    resample = """async ([rate, hertz, size]) => {
        const { Resampler, RATE } = await import("/audio.js");
        const resampler = new Resampler(rate, RATE);
        const tone = Float32Array.from({ length: rate / 2 }, (_, i) => Math.sin((2 * Math.PI * hertz * i) / rate));
        const out = [];
        for (let at = 0; at < tone.length; at += size) out.push(...resampler.push(tone.subarray(at, at + size)));
        return out;
    }"""
    whole = np.array(page.evaluate(resample, [rate, 1000, rate]))
    pieces = np.array(page.evaluate(resample, [rate, 1000, 331]))
    assert len(whole) == pytest.approx(8000, abs=60)
    assert np.allclose(whole, pieces, atol=0.02), "no seams; places are rounded to the kernel's table"
    middle = np.arange(100, 7900)
    assert np.abs(whole[middle] - np.sin(2 * np.pi * 1000 * middle / 16000)).max() < 0.02
    if rate > 20000:
        assert np.abs(np.array(page.evaluate(resample, [rate, 10000, 4096]))[middle]).max() < 0.02


@pytest.mark.slow
def test_recordings_wait_in_the_queue_and_are_found_in_the_history(
    browse: Any, server: Running, tmp_path: Path
) -> None:
    page = browse(server, locale="ru-RU")
    settings(page, queue=True)
    first, second = write(tmp_path / "первый.wav", "ёлка большая"), write(tmp_path / f"{EVIL}.wav", "привет мир")
    page.set_input_files("#file", [first, second])
    page.locator("#history li", has_text="привет мир").wait_for()
    page.fill("#history input[type=search]", "ЕЛКИ")
    page.locator("#history mark", has_text="ёлка").wait_for()
    lines = page.locator("#history li")
    assert lines.count() == 1
    page.click("#history button.item")
    page.locator("#text .word").first.wait_for()
    assert words(page) == ["ёлка", "большая"]
    assert page.inner_text("#name") == "первый.wav"
    page.locator(".word").nth(1).click()
    page.locator(".word.on", has_text="большая").wait_for()  # the page still has the file
    page.click("#history li button[aria-label]")
    page.click("#history li button[aria-label]", delay=10)
    page.locator("#history li", has_text="Ничего не найдено").wait_for()
    page.fill("#history input[type=search]", "")
    page.locator("#history li", has_text="привет мир").wait_for()
    assert [line["name"] for line in ask(server, "/v1/history")["data"]] == [second.name]
    assert page.locator("#history b").inner_text() == second.name
    assert page.locator("aside img").count() == 0
    assert page.title() == "речка"


@pytest.mark.slow
def test_a_long_job_shows_how_far_it_is_and_can_be_cancelled(browse: Any, server: Running, tmp_path: Path) -> None:
    page = browse(server)
    page.locator("#model option", has_text="rechka-mini").wait_for(state="attached")
    page.select_option("#model", "rechka-mini")
    spoken, rate = soundfile.read(PROMPT, dtype="int16")
    soundfile.write(tmp_path / "long.wav", np.tile(spoken, 400), rate)  # half an hour: no need to ask for the queue
    page.set_input_files("#file", tmp_path / "long.wav")
    row = page.locator("#jobs li", has_text="long.wav")
    row.locator(".told", has_text=re.compile(r"recognising [1-9]\d* %")).wait_for()
    assert 0 < row.locator("progress").evaluate("bar => bar.value") < 1
    row.get_by_role("button", name="Cancel").click()
    row.locator(".told", has_text="cancelled").wait_for()
    (job,) = (job for job in ask(server, "/v1/jobs")["data"] if job["name"] == "long.wav")
    assert job["status"] == "cancelled"
    remove = row.get_by_role("button", name="Delete")
    remove.click()
    remove.click()
    row.wait_for(state="detached")
    assert all(job["name"] != "long.wav" for job in ask(server, "/v1/jobs")["data"])


@pytest.mark.slow
def test_the_servers_reasons_are_told_and_keys_are_asked_for(browse: Any, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"good").hexdigest()
    (tmp_path / "keys.toml").write_text(f'[[key]]\nname = "a"\nsha256 = "{digest}"\n')
    with serving(keys_file=tmp_path / "keys.toml") as running:
        page = browse(running, allowed="401")
        page.fill("#key", "bad")
        page.keyboard.press("Enter")
        page.locator("#state.bad", has_text="the API key is not known").wait_for()
        page.fill("#key", "good")
        page.keyboard.press("Enter")
        page.locator("#state:not(.bad)", has_text="The key is good").wait_for()
        settings(page, hotwords="слово:1000")
        page.set_input_files("#file", write(tmp_path / "a.wav", "привет мир"))
        page.locator("#state.bad", has_text="boost").wait_for()
        settings(page, hotwords="")
        page.set_input_files("#file", tmp_path / "a.wav")
        done(page)
        assert words(page) == ["привет", "мир"]
        page.reload()
        assert page.input_value("#key") == "good", "as long as the tab lives"


@pytest.mark.slow
def test_text_is_never_markup(browse: Any, plain: Running, tmp_path: Path) -> None:
    page = browse(plain)
    word = {"word": EVIL, "start": 0.0, "end": 1.0, "confidence": 0.3}
    segment = {"text": EVIL, "start": 0, "end": 1, "channel": 0, "speaker": EVIL, "words": [word], "labels": {}}
    item = {"when": 0, "about": {"name": EVIL, "duration": 1}, "segments": [segment]}
    page.evaluate("item => localStorage.setItem('rechka.past', JSON.stringify([item]))", item)
    page.reload()
    page.fill("#recent input[type=search]", "ONERROR")
    page.locator("#recent mark", has_text="onerror").wait_for()
    page.locator("#recent button.item").click()
    assert EVIL in page.inner_text("#text")
    assert EVIL in page.inner_text("#name")
    assert EVIL in page.inner_text("#recent")
    vtt = saved(page, "VTT")
    assert "<img" not in vtt
    assert "&lt;img" in vtt
    settings(page, hotwords=f"{EVIL}:1000")
    bare = write(tmp_path / "x.wav", "привет мир").read_bytes()
    page.set_input_files("#file", {"name": EVIL, "mimeType": "audio/wav", "buffer": bare})
    page.locator("#state.bad", has_text="boost").wait_for()
    assert page.inner_text("#name") == EVIL
    page.set_input_files("#file", {"name": EVIL, "mimeType": "audio/wav", "buffer": b"RIFF nothing"})
    page.locator("#state.bad").wait_for()
    assert page.locator("img").count() == 1, "the logo alone"
    assert page.title() == "речка"


@pytest.mark.slow
def test_everything_can_be_done_with_the_keyboard(browse: Any, plain: Running, tmp_path: Path) -> None:
    page = browse(plain)
    focused = "() => document.activeElement.id || document.activeElement.textContent"
    page.locator("#model").focus()
    stops = []
    for _ in range(5):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(focused))
    assert stops[1:3] == ["file", "mic"]
    choosers: list[Any] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.locator("#file").focus()
    deadline = time.monotonic() + 120
    while not choosers and time.monotonic() < deadline:  # a busy browser may not intercept the first one
        page.keyboard.press("Space")
        page.wait_for_timeout(1000)
    choosers[0].set_files(write(tmp_path / "call.wav", "один два три"))
    done(page)
    page.locator("#saves button").last.focus()
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "один"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == "два"
    page.keyboard.press("Enter")
    page.locator(".word.on", has_text="два").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate(focused) not in ("один", "три"), "the words are one stop"
    page.locator("#wave").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    deadline = time.monotonic() + 120
    while int(page.get_attribute("#wave", "aria-valuenow")) < 2 and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert int(page.get_attribute("#wave", "aria-valuenow")) >= 2
    page.keyboard.press("/")
    page.keyboard.type("четыре")
    page.locator("#recent li", has_text="Nothing was found").wait_for()
