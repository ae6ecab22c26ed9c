"""The documentation is true: its blocks run, and it names every verb, option, error, variable and format."""

import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from rechka.cli.main import build, main
from rechka.testing import say

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
WRITTEN = ("help.md", "errors.md", "settings.md")
BLOCK = re.compile(r"(?:^<!-- skip: (?P<why>[^\n]+?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


def blocks(kind):
    """Pages with their blocks of one kind, those left out that say why they cannot run."""
    found = []
    for page in PAGES:
        texts = [
            m["text"] for m in BLOCK.finditer(page.read_text(encoding="utf-8")) if m["kind"] == kind and not m["why"]
        ]
        if texts:
            found.append(pytest.param(texts, id=str(page.relative_to(ROOT))))
    assert len(found) >= 5, f"the pages have {kind} blocks, and only {len(found)} of them were found"
    return found


def load_reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the recordings that the pages name, all of them tone speech, and the toy as the default model."""
    import soundfile

    import rechka
    from rechka.hub.load import load
    from rechka.options import DecoderOptions

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECHKA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RECHKA_OFFLINE", "1")
    audio = say("добрый день", before_s=1, after_s=1)
    (tmp_path / "calls/monday").mkdir(parents=True)
    (tmp_path / "examples").mkdir()
    for name in ("call.wav", "meeting.wav", "calls/a.wav", "calls/monday/a.wav", "examples/prompt.wav"):
        soundfile.write(tmp_path / name, np.stack([audio, audio], axis=1), 8000)
    for name, subtype in (("leg.ulaw", "ULAW"), ("leg.raw", "ALAW")):
        soundfile.write(tmp_path / name, audio, 8000, format="RAW", subtype=subtype)

    def load_toy(model=None, **options):
        return load(model or "toy", **{"decoder": DecoderOptions(), **options})  # not its card's: hotwords need a beam

    monkeypatch.setitem(rechka.__dict__, "load", load_toy)
    monkeypatch.setitem(
        rechka.__dict__,
        "microphone",
        lambda sample_rate=8000: rechka.open_source((audio, 8000), sample_rate=sample_rate),
    )
    return tmp_path


@pytest.mark.parametrize("texts", blocks("python"))
def test_python_blocks_run(desk, texts, capfd):
    """Top to bottom in one namespace, as a reader types them; what they print is not compared."""
    names = {"__name__": "page", "data": b"\0\1" * 4000}  # the bytes that pages call data
    for number, text in enumerate(texts, 1):
        exec(compile(text, f"<python block {number}>", "exec"), names)
        assert "Traceback" not in capfd.readouterr().err, f"in a thread or at an exit of python block {number}"


@pytest.mark.parametrize("texts", blocks("console"))
def test_console_blocks_run(desk, texts, capfd):
    """Every ``$ rechka ...`` line; what it prints is not compared, since the pages show real models."""
    commands = [line[2:].split("  #")[0] for text in texts for line in text.splitlines() if line.startswith("$ ")]
    assert commands, "a console block shows commands, each after a dollar sign"
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "rechka", f"say why {command!r} cannot run: <!-- skip: reason --> before the block"
        if ">" in words:
            words = words[: words.index(">")]
        assert main(words[1:]) == 0, f"{command}: {capfd.readouterr().err}"


@pytest.mark.parametrize(
    ("name", "words", "said"), [("packets", "call.wav", "добрый день"), ("subtitles", "calls", "a.srt")]
)
def test_examples_run(desk, monkeypatch, capsys, name, words, said):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", words])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert said in capsys.readouterr().out.split("\n")[-2]


@pytest.mark.parametrize("name", WRITTEN)
def test_written_pages_are_not_stale(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    page = load_reference().PAGES[name]()
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == page, "run: make docs"


def prose():
    """All pages but those that the program wrote."""
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name not in WRITTEN)


def test_every_verb_is_documented():
    app = build()
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    verbs |= {group.name for group in app.registered_groups}
    assert {"transcribe", "listen", "models"} <= verbs
    text = prose()
    assert {verb for verb in verbs if f"rechka {verb}" not in text} == set()


@pytest.mark.parametrize("verb", ["transcribe", "listen"])
def test_every_option_of_the_main_verbs_is_explained(verb):
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    section = page.split(f"## rechka {verb}\n")[1].split("\n## ")[0]
    written = (ROOT / "docs/help.md").read_text(encoding="utf-8").split(f"## rechka {verb}\n")[1].split("\n## ")[0]
    options = set(re.findall(r"(--[a-z-]+)", written)) - {"--help"}
    assert {option for option in options if f"`{option}" not in section} == set()


def test_every_variable_is_explained():
    used = set()
    for path in (ROOT / "src/rechka").rglob("*.py"):
        used |= set(re.findall(r"[\"'](RECHKA_[A-Z_]+|HF_[A-Z_]+)[\"']", path.read_text(encoding="utf-8")))
    text = prose()
    assert used
    assert {name for name in used if f"`{name}" not in text} == set()


def test_every_format_is_explained():
    from rechka.formats import FORMATS

    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    assert [name for name in FORMATS if f"## {name}\n" not in page] == []


def test_links_lead_somewhere():
    lost = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", text):
            target = target[0] or target[1]
            if "://" not in target and not target.startswith("mailto:") and not (page.parent / target).exists():
                lost.append(f"{page.relative_to(ROOT)}: {target}")
    assert lost == []


def test_no_page_is_lost():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert [
        page.name for page in ROOT.glob("docs/*.md") if page.name != "index.md" and f"({page.name})" not in index
    ] == []


def test_the_readmes_are_twins():
    """Same blocks, but for their comments, same headings by level, same links but for the language."""

    def shape(name):
        text = (ROOT / name).read_text(encoding="utf-8")
        code = [re.sub(r"\s*#.*", "", match["text"]) for match in BLOCK.finditer(text)]
        rest = BLOCK.sub("", text)
        return code, [len(level) for level in re.findall(r"^(#+) ", rest, re.M)], rest.count("\n|")

    assert shape("README.md") == shape("README.ru.md")


def test_the_changelog_knows_the_version():
    import rechka

    assert f"## {rechka.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
