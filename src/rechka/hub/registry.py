"""Where models are: cards in the package, cards of the user, folders. Looking costs no network and reads no weights.

Layout of the cache, ``$RECHKA_HOME`` or the platform's cache folder (``docs/models.md``)::

    cards/NAME.toml           the user's own cards
    models/NAME/...           a model's files at their cards' paths, and
    models/NAME/lock.json     what was pulled: repository, commit, sizes, sha256
    models/NAME/card.toml     only if the whole folder was put there by hand

A user's card hides a built-in one of the same name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rechka.errors import BadCard, ModelNotFound, UsageError
from rechka.hub.card import Card, CardFile
from rechka.hub.layouts import recognise

PREFERRED = "t-one"
"""What ``load()`` takes if it is on disk."""

EMBEDDED = "rechka-mini"
"""Name of the model inside the package."""

CARD_FILE = "card.toml"
LOCK_FILE = "lock.json"
LM_FILES = ("kenlm.bin", "lm.bin", "lm.arpa", "lm.arpa.gz")
"""Names under which a language model is found in a folder without a card; any ``*.rlm`` is taken first."""

_PACKAGE = Path(__file__).parent


def home() -> Path:
    """The folder of cards and models: ``$RECHKA_HOME``, else ``rechka`` in the platform's cache folder."""
    if chosen := os.environ.get("RECHKA_HOME"):
        try:
            path = Path(chosen).expanduser().absolute()
            with contextlib.suppress(FileNotFoundError):  # it is made when something is kept
                path.stat()
        except RuntimeError:
            raise UsageError(f"RECHKA_HOME is {chosen}, the home of nobody here", remedy="name a folder") from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"RECHKA_HOME cannot be used: {why}: {chosen:.80}", remedy="name a folder") from None
        return path
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rechka"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "rechka" / "Cache"
    cache = os.environ.get("XDG_CACHE_HOME", "")  # relative ones are to be ignored, says the XDG specification
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "rechka"


@dataclass(frozen=True, slots=True)
class Locked:
    """What is recorded of one pulled file."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Lock:
    """What was pulled: kept beside the model as ``lock.json``.

    Attributes:
        repo: repository.
        asked: the card's revision at the time, empty if it named none.
        revision: the commit that all the files come from.
        endpoint: address of the Hub or its mirror.
        files: role -> file with the size and sha256 that it had when it was checked.
    """

    repo: str
    asked: str
    revision: str
    endpoint: str
    files: Mapping[str, Locked] = field(default_factory=dict)

    def fits(self, card: Card) -> bool:
        """False if the card has moved to another repository or revision since."""
        return (self.repo, self.asked) == (card.repo, card.revision)

    @classmethod
    def read(cls, folder: Path) -> Lock | None:
        """The record in a model's folder, or None if there is none.

        Raises:
            BadCard: the record is damaged.
        """
        path = folder / LOCK_FILE
        try:
            table = json.loads(path.read_text("utf-8"))
            files = {
                role: Locked(str(f["path"]), int(f["size"]), str(f["sha256"])) for role, f in table["files"].items()
            }
            repo, asked, revision, endpoint = (str(table[key]) for key in ("repo", "asked", "revision", "endpoint"))
            return cls(repo, asked, revision, endpoint, files)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            remedy = f"run: rechka models pull {folder.name} --update"
            raise BadCard(f"{path} is damaged ({type(error).__name__}: {error})", remedy=remedy) from None

    def to_json(self) -> str:
        """The record as the text of ``lock.json``."""
        table: dict[str, Any] = {key: getattr(self, key) for key in ("repo", "asked", "revision", "endpoint")}
        table["files"] = {
            role: {"path": file.path, "size": file.size, "sha256": file.sha256} for role, file in self.files.items()
        }
        return json.dumps(table, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """A card together with the folder where its files are or would be.

    Attributes:
        card: the card.
        folder: where the files lie.
        origin: ``"built-in"``, ``"embedded"``, ``"user"`` (in the cache) or ``"folder"`` (given by path).
    """

    card: Card
    folder: Path
    origin: str

    def path(self, role: str) -> Path:
        """Where the file of a role lies or would lie."""
        return self.folder / self.card.files[role].path

    def on_disk(self) -> dict[str, Path]:
        """Role -> path of the files that are there."""
        return {role: self.path(role) for role in self.card.files if self.path(role).is_file()}

    def missing(self) -> list[str]:
        """Roles of required files that are not there."""
        return [role for role, file in self.card.files.items() if not file.optional and not self.path(role).is_file()]

    @property
    def ready(self) -> bool:
        """True if all required files are there; their contents are not looked at."""
        return not self.missing()

    def lock(self) -> Lock | None:
        """What was recorded when it was pulled."""
        return Lock.read(self.folder) if self.card.repo else None

    def expected(self, role: str, lock: Lock | None) -> CardFile:
        """The file of a role with the exact size and sha256 of the card, else of the record, else None."""
        file = self.card.files[role]
        pulled = lock.files.get(role) if lock else None
        if pulled is None or pulled.path != file.path:
            return file
        return CardFile(
            path=file.path,
            size=pulled.size if file.size is None else file.size,
            sha256=file.sha256 or pulled.sha256,
            optional=file.optional,
        )


def entries() -> tuple[list[Entry], dict[Path, BadCard]]:
    """All models that can be named, the user's first, and what is wrong with the cards that could not be read."""
    found: dict[str, Entry] = {}
    broken: dict[Path, BadCard] = {}
    for path, folder, origin in _places():
        try:
            card = Card.read(path)
        except BadCard as error:
            broken[path] = error
            continue
        found.setdefault(card.name, Entry(card, folder or home() / "models" / card.name, origin))
    return list(found.values()), broken


def _places() -> Iterator[tuple[Path, Path | None, str]]:
    """Card file, folder of the model (None: the cache's), origin; in order of precedence."""
    root = home()
    for path in sorted((root / "cards").glob("*.toml")):
        yield path, None, "user"
    for path in sorted((root / "models").glob(f"*/{CARD_FILE}")):
        yield path, path.parent, "user"
    embedded = _PACKAGE / "embedded" / CARD_FILE
    if embedded.is_file():
        yield embedded, embedded.parent, "embedded"
    for path in sorted((_PACKAGE / "cards").glob("*.toml")):
        yield path, None, "built-in"


def find(model: str | Path) -> Entry:
    """The model of a name, a folder, or a path to a card.

    A ``Path``, and a text with a path separator or ending in ``.toml``, is a path; any other text is a name.

    Raises:
        ModelNotFound: no card of that name, or nothing usable at that path.
        BadCard: the card cannot be read.
    """
    if isinstance(model, Path) or _looks_like_path(model):
        return _at_path(Path(os.path.expanduser(model)))  # pathlib raises where nobody has that home
    if not model.strip():
        raise UsageError("the name of a model is empty", remedy="see: rechka models list")
    known, broken = entries()
    for entry in known:
        if entry.card.name == model:
            return entry
    for path, error in broken.items():  # the card was asked for and is there, but cannot be read
        if model in (path.stem, path.parent.name if path.name == CARD_FILE else None):
            raise error
    near = get_close_matches(model.lower(), [entry.card.name for entry in known], n=3, cutoff=0.5)
    hints = [f"did you mean {' or '.join(near)}?"] if near else []
    if os.path.isdir(model):
        hints.append(f"a folder of that name is here: write ./{model}")
    elif os.path.isfile(model):
        hints.append("a file of that name is here; a model is a name, a folder or a card (.toml)")
    raise ModelNotFound(
        f"no model is called {model!r}; looked in {home() / 'cards'}, {home() / 'models'} and the package",
        remedy="; ".join([*hints, "all names: rechka models list"]),
    )


def _looks_like_path(model: str) -> bool:
    separators = [os.sep, "/"] + ([os.altsep] if os.altsep else [])
    return model in (".", "..", "~") or model.endswith(".toml") or any(mark in model for mark in separators)


def _at_path(path: Path) -> Entry:
    if os.path.isfile(path) and path.suffix == ".toml":  # pathlib raises where a name is too long
        return Entry(Card.read(path), path.parent, "folder")
    if os.path.isdir(path):
        if (path / CARD_FILE).is_file():
            return Entry(Card.read(path / CARD_FILE), path, "folder")
        return Entry(recognise(path) or _bare(path), path, "folder")
    if os.path.isfile(path):
        raise ModelNotFound(
            f"{path} is a file, expected a folder or a card (.toml)", remedy=f"give its folder: {path.parent or '.'}"
        )
    raise ModelNotFound(
        f"{path} does not exist; expected the folder or the card (.toml) of a model",
        remedy="see the names that are known: rechka models list",
    )


def _bare(folder: Path) -> Card:
    """A card for a folder without one that looks like T-one as published: ``model.onnx``, perhaps more."""
    if not (folder / "model.onnx").is_file():
        raise ModelNotFound(
            f"{folder} holds neither {CARD_FILE} nor model.onnx",
            remedy=f"write a {CARD_FILE} beside the files (docs/models.md shows one)",
        )
    files = {"model": CardFile("model.onnx")}
    ours = sorted(path.name for path in folder.glob("*.rlm"))
    others = [name for name in LM_FILES if (folder / name).is_file()]
    if ours or others:
        files["lm"] = CardFile((ours or others)[0], optional=True)
    published = {"weights": "model.safetensors", "config": "config.json"}
    if (folder / published["weights"]).is_file():
        files |= {role: CardFile(path, optional=True) for role, path in published.items() if (folder / path).is_file()}
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("-._")[:64]
    return Card(name=name or "folder", family="tone", language="ru", license="unknown", files=files)
