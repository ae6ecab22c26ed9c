"""Writes docs/help.md and docs/errors.md from the program; ``make docs`` calls it, tests/docs compares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
WIDTH = 100


def help_page() -> str:
    """What ``--help`` prints, for the program and for each verb and its parts."""
    import typer

    from rechka.cli.main import build

    os.environ["COLUMNS"] = str(WIDTH)
    os.environ["TERMINAL_WIDTH"] = str(WIDTH)
    parts = ["# Help of every verb\n\nWritten by `make docs`; the same as `rechka VERB --help`.\n"]
    for name, text in _helps(typer.main.get_command(build()), "rechka"):
        parts.append(f"## {name}\n\n```text\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def _helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    context = command.make_context(name.split()[-1], [], parent=parent, resilient_parsing=True)
    yield name, context.get_help()
    for sub_name, sub in getattr(command, "commands", {}).items():
        yield from _helps(sub, f"{name} {sub_name}", context)


ERRORS_PAGE = """# Errors

Written by `make docs` from `rechka.errors`. A code never changes its meaning; new ones may come.

On the command line an error is one line on stderr, `rechka: error [code]: message; remedy`, and in `--json` output an
object `{{"code", "message", "remedy"}}`. In Python every error is a `rechka.RechkaError` with `code`, `message` and
`remedy`; most are also the built-in error that fits, such as `ValueError` or `FileNotFoundError`.

| code | class | exit code | meaning |
|---|---|---|---|
{rows}
| `internal` | any other | 4 | A fault of rechka; please report it. `RECHKA_DEBUG=1` shows the traceback. |

`rechka transcribe` goes on with the other inputs when one fails and then exits with 1; when nothing that was named
exists it exits with 3. Ctrl-C exits with 130, a reader that leaves (`| head`) with 141.
"""


def errors_page() -> str:
    """Every error that is raised on purpose: code, class, exit code, meaning."""
    rows = [
        f"| `{kind.code}` | `{kind.__name__}` | {kind.exit_code} | {(kind.__doc__ or '').splitlines()[0]} |"
        for kind in _kinds()
    ]
    return ERRORS_PAGE.format(rows="\n".join(rows))


def _kinds() -> list[Any]:
    """The classes in the order of their codes, groups before their members."""
    from rechka.errors import RechkaError

    found: list[Any] = []
    waiting: list[Any] = [RechkaError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return sorted((kind for kind in found if kind.__module__ == "rechka.errors"), key=lambda kind: kind.code)


MAP = "<!-- the map: written by make docs -->"
MAP_END = "<!-- end of the map -->"


def models_page() -> str:
    """docs/models.md with the table of the built-in cards between its two marks."""
    text = (HERE / "models.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(MAP)
    return f"{before}{MAP}\n{models_map()}{MAP_END}{rest.partition(MAP_END)[2]}"


def models_map() -> str:
    """One line per built-in card, in the order of ``rechka models list``."""
    from rechka.hub.card import Card
    from rechka.hub.map import TESTS, Line, ordered
    from rechka.hub.registry import Entry

    cards = sorted((HERE.parent / "src/rechka/hub/cards").glob("*.toml"))
    entries = {path.stem: Entry(Card.read(path), HERE / "nowhere", "built-in") for path in cards}
    rows = [
        "| name | what | family | size | licence | get | " + " | ".join(TESTS) + " |",
        "|---|---|---|---|---|---|" + "---|" * len(TESTS),
    ]
    for line in ordered(Line.of(entry, TESTS[0]) for entry in entries.values()):
        card = entries[line.name].card
        source = f"[{line.title}]({card.source})" if card.source else line.title
        size = f"{line.size / 1e9:.2f} GB" if (line.size or 0) >= 1e9 else f"{round((line.size or 0) / 1e6)} MB"
        rates = [Line.of(entries[line.name], test).wer for test in TESTS]
        cells = [f"`{line.name}`", source, line.family, size if line.size else "", line.license, line.state]
        rows.append("| " + " | ".join([*cells, *("" if rate is None else str(rate) for rate in rates)]) + " |")
    return "\n".join(rows) + "\n"


SETTINGS_PAGE = """# Settings of the server

Written by `make docs` from `rechka.server.settings`. Each name is a key of the TOML file; with `-` for `_` it is a flag
of `rechka serve`, in capitals after `RECHKA_` a variable. Lists are written with commas in flags and variables.
{groups}"""


def settings_page() -> str:
    """Every setting of ``rechka serve``: name, default, meaning."""
    from rechka.server.settings import FIELDS, Resolved, Settings

    values = Resolved(Settings(), {}).show()
    groups = ""
    last = ""
    for name, item in FIELDS.items():
        if item.metadata["group"] != last:
            last = item.metadata["group"]
            groups += f"\n## {last}\n\n| setting | default | meaning |\n|---|---|---|\n"
        line = next(line for line in values.splitlines() if line.removeprefix("# ").startswith(f"{name} ="))
        default = "" if line.startswith("#") else f"`{line.split(' = ', 1)[1].split('  # ')[0]}`"
        unit = f" In {item.metadata['unit']}." if item.metadata["unit"] not in ("", "s") else ""
        seconds = " Seconds." if item.metadata["unit"] == "s" else ""
        groups += f"| `{name}` | {default} | {item.metadata['help']}{unit}{seconds} |\n"
    return SETTINGS_PAGE.format(groups=groups)


PAGES = {"help.md": help_page, "settings.md": settings_page, "errors.md": errors_page, "models.md": models_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
