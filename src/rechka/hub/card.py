"""A model is a card: a TOML file that names its family, its files, its licence and where they come from.

A card may come from anywhere, so nothing in it is believed until it is parsed: paths cannot leave the model's folder,
the family is looked up in a fixed table, unknown keys and odd values are refused with the place where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rechka.errors import BadCard
from rechka.hub import toml
from rechka.hub.table import Table, show
from rechka.options import DecoderOptions, SegmenterOptions

FAMILIES: Mapping[str, str] = {
    "conformer": "rechka.models.conformer",
    "gigaam": "rechka.models.gigaam",
    "tone": "rechka.models.tone",
    "toy": "rechka.models.toy",
    "whisper": "rechka.models.whisper",
    "zipformer": "rechka.models.zipformer",
}
"""Family -> module with ``load(files, params, *, device, threads)``. A card can choose among these and nothing else."""

MAX_CARD_BYTES = 1 << 20
"""A larger file is no card; the limit keeps a hostile one from filling the memory."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ROLE = re.compile(r"[a-z][a-z0-9_]{0,31}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_URL = re.compile(r"https?://[^\s\"'<>]+")
_PATH_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")
_RESERVED = frozenset({"card.toml", "lock.json"})  # the hub's own files beside the model


@dataclass(frozen=True, slots=True)
class CardFile:
    """One file of a model.

    Attributes:
        path: where it lies, relative to the model's folder and to the repository, with ``/``.
        size: exact length in bytes, or None if it is not known; checked.
        approx_size: length in bytes for display, when the exact one is not known; never checked.
        sha256: 64 hexadecimal digits, or None if it is not known; checked.
        optional: the model works without it; ``pull`` leaves it out unless asked.
        md5: 32 hexadecimal digits where that is all its publisher tells; checked when there is no ``sha256``.
    """

    path: str
    size: int | None = None
    approx_size: int | None = None
    sha256: str | None = None
    optional: bool = False
    md5: str | None = None


@dataclass(frozen=True, slots=True)
class Original:
    """A file that the model's authors publish and that has to be converted (``rechka models convert``).

    Attributes:
        url: where it is, http or https.
        size, sha256, md5: as in ``CardFile``; each None if it is not known.
    """

    url: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """Its file name, the last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Result:
    """One measured figure, with the command that made it or the place where it was published.

    Attributes:
        test: what was recognised.
        metric: with its unit, such as ``"WER %"``.
        value: the figure.
        interval: its 95 % interval, or None.
        command: the command that made it; empty for a figure that others published.
        source: where a published figure stands; empty for our own.
    """

    test: str
    metric: str
    value: float
    interval: tuple[float, float] | None = None
    command: str = ""
    source: str = ""

    @property
    def measured(self) -> bool:
        """True if we made the figure ourselves, with ``command``; False if it was only published."""
        return bool(self.command)


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that is known of a model before its files are read. ``docs/models.md`` describes the keys.

    Attributes:
        name: how it is asked for, lower-case Latin letters, digits, ``.``, ``_``, ``-``.
        family: a key of ``FAMILIES``.
        language: a language tag, such as ``"ru"``.
        license: SPDX expression.
        title, summary: texts by language (``"en"``, ``"ru"``).
        source: address of a page about the model, or empty.
        repo: Hugging Face repository ``owner/name``, or empty if the model cannot be pulled.
        revision: commit, tag or branch of it, or empty: ``pull`` then pins what it finds in ``main``.
        files: role -> file.
        params: the family's own parameters.
        decoder, segmenter: settings that differ from the defaults of ``DecoderOptions`` and ``SegmenterOptions``.
        confidence: slope and offset that turn a word's raw confidence into how often it is right (logistic), or None.
        results: figures.
        originals: role (``"checkpoint"``, ``"tokenizer"``) -> file of the authors.
    """

    name: str
    family: str
    language: str
    license: str
    title: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    repo: str = ""
    revision: str = ""
    files: Mapping[str, CardFile] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    decoder: Mapping[str, Any] = field(default_factory=dict)
    segmenter: Mapping[str, Any] = field(default_factory=dict)
    confidence: tuple[float, float] | None = None
    results: tuple[Result, ...] = ()
    originals: Mapping[str, Original] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, *, where: str = "card") -> Card:
        """The card that a TOML text describes.

        Args:
            text: the document.
            where: named in error messages, usually the path.
        Raises:
            BadCard: not TOML, a key is missing or unknown, or a value is not allowed.
        """
        try:
            table = toml.loads(text)
        except ValueError as error:
            raise BadCard(f"{where} is not TOML: {error}", remedy="see docs/models.md for the form of a card") from None
        return _card(Table(table, where))

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """The card in a file.

        Raises:
            BadCard: the file cannot be read, is too large, or is no card.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_CARD_BYTES + 1)
        except OSError as error:
            raise BadCard(f"{path} cannot be read: {error.strerror or error}") from None
        if len(data) > MAX_CARD_BYTES:
            raise BadCard(f"{path} is larger than {MAX_CARD_BYTES} bytes; that is no model card")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise BadCard(f"{path} is not UTF-8 text; a card is a TOML file") from None
        return cls.parse(text, where=str(path))

    def to_dict(self) -> dict[str, Any]:
        """The card as plain values, without what is empty; the layout of the TOML file."""
        table: dict[str, Any] = {}
        for key in ("name", "family", "language", "license", "source", "repo", "revision", "title", "summary"):
            if value := getattr(self, key):
                table[key] = dict(value) if isinstance(value, Mapping) else value
        if self.files:
            table["files"] = {role: _without_defaults(file) for role, file in self.files.items()}
        if self.originals:
            table["originals"] = {role: _without_defaults(file) for role, file in self.originals.items()}
        for key in ("params", "decoder", "segmenter"):
            if value := getattr(self, key):
                table[key] = dict(value)
        if self.confidence is not None:
            table["confidence"] = list(self.confidence)
        if self.results:
            table["results"] = [_without_defaults(result) for result in self.results]
        return table

    def to_toml(self) -> str:
        """The card as a TOML document that ``parse`` reads back as an equal card.

        Raises:
            BadCard: the fields hold something that ``parse`` would refuse; nobody should write a card nobody can read.
        """
        text = toml.dumps(self.to_dict())
        Card.parse(text, where=f"card {self.name!r}")
        return text

    def describe(self, language: str = "en") -> str:
        """The summary in ``language``, else in English, else in any language, else empty."""
        return self.summary.get(language) or self.summary.get("en") or next(iter(self.summary.values()), "")


def _without_defaults(value: CardFile | Original | Result) -> dict[str, Any]:
    """A dataclass as a dictionary without the fields that hold their default."""
    table: dict[str, Any] = {}
    for item in fields(value):
        content = getattr(value, item.name)
        if content != item.default:
            table[item.name] = list(content) if isinstance(content, tuple) else content
    return table


def _card(table: Table) -> Card:
    name = table.need("name", table.text("name", _NAME, "lower-case Latin letters, digits, '.', '_', '-'"))
    table.where = f"{table.where} ({name})" if name not in table.where else table.where
    family = table.need("family", table.text("family"))
    if family not in FAMILIES:
        raise table.error(
            f"family {show(family)} is not known to this version of rechka",
            f"known families: {', '.join(FAMILIES)}; a newer rechka may know more",
        )
    files = table.table("files")
    params = table.table("params")
    card = Card(
        name=name,
        family=family,
        language=table.need("language", table.text("language", _LANGUAGE, "a language tag such as 'ru'")),
        license=table.need("license", table.text("license")),
        title=_texts(table.table("title")),
        summary=_texts(table.table("summary")),
        source=table.text("source", _URL, "an http or https address") or "",
        repo=_no_dots(table, "repo", table.text("repo", _REPO, "'owner/name'")),
        revision=_no_dots(table, "revision", table.text("revision", _REVISION, "a commit, tag or branch")),
        files=_files(files),
        params=params.rest(),
        decoder=_options(table.table("decoder"), DecoderOptions()),
        segmenter=_options(table.table("segmenter"), SegmenterOptions()),
        confidence=table.pair("confidence"),
        results=tuple(_result(item) for item in table.tables("results")),
        originals=_originals(table.table("originals")),
    )
    table.finish()
    return card


def _no_dots(table: Table, key: str, value: str | None) -> str:
    """Refuse ``..`` in what becomes part of an address."""
    if value and ".." in value:
        raise table.error(f"{key!r} may not hold '..', got {show(value)}")
    return value or ""


def _texts(table: Table) -> dict[str, str]:
    texts = {language: table.text(language) for language in ("en", "ru")}
    table.finish()
    return {language: text for language, text in texts.items() if text}


def _files(table: Table) -> dict[str, CardFile]:
    files: dict[str, CardFile] = {}
    paths: dict[str, str] = {}
    for role in table:
        if not _ROLE.fullmatch(role):
            raise table.error(f"a file's role must be lower-case Latin letters, digits and '_', got {show(role)}")
        item = table.table(role)
        path = check_path(item.need("path", item.text("path")), item.where)
        # Folders on macOS and Windows fold case, so two paths that differ only in it would be one file there.
        if other := paths.get(path.casefold()):
            raise item.error(f"path {path!r} is also the path of {other!r}")
        paths[path.casefold()] = role
        files[role] = CardFile(
            path=path,
            size=item.count("size"),
            approx_size=item.count("approx_size"),
            sha256=item.text("sha256", _SHA256, "64 lower-case hexadecimal digits"),
            optional=item.flag("optional"),
            md5=item.text("md5", _MD5, "32 lower-case hexadecimal digits"),
        )
        item.finish()
    return files


def _originals(table: Table) -> dict[str, Original]:
    originals: dict[str, Original] = {}
    for role in table:
        item = table.table(role)
        originals[role] = original = Original(
            url=item.need("url", item.text("url", _URL, "an http or https address")),
            size=item.count("size"),
            sha256=item.text("sha256", _SHA256, "64 lower-case hexadecimal digits"),
            md5=item.text("md5", _MD5, "32 lower-case hexadecimal digits"),
        )
        if role not in ("checkpoint", "tokenizer"):
            raise table.error(f"an original is a checkpoint or a tokenizer, got {show(role)}")
        check_path(original.name, item.where)
        item.finish()
    return originals


def check_path(path: str, where: str) -> str:
    """The path itself if it stays inside the folder of its model on every system, else an error.

    Raises:
        BadCard: absolute, with ``..``, a drive, a backslash, a hidden part, or one of the hub's own file names.
    """
    parts = path.split("/")
    safe = all(_PATH_PART.fullmatch(part) and not part.endswith(".") for part in parts) and ".." not in path
    if not safe or len(path) > 255:
        raise BadCard(
            f"{where}: path {show(path)} is not a plain relative path",
            remedy="use Latin letters, digits and '._+-', parts joined by '/', none starting with a dot",
        )
    if parts[0].casefold() in _RESERVED:
        raise BadCard(f"{where}: path {show(path)} is a name that the hub keeps for itself")
    return path


def _options(table: Table, defaults: DecoderOptions | SegmenterOptions) -> dict[str, Any]:
    """Overrides of an options dataclass: known names, types as in its defaults."""
    overrides: dict[str, Any] = {}
    for item in fields(defaults):
        default = getattr(defaults, item.name)
        value: Any
        if isinstance(default, dict):
            entries = table.table(item.name)
            value = {key: entries.need(key, entries.number(key)) for key in entries} or None
        elif isinstance(default, bool):
            value = table.flag(item.name) or None
        elif isinstance(default, int):
            value = table.count(item.name)
        elif isinstance(default, float):
            value = table.number(item.name)
        else:
            value = table.text(item.name)
        if value is not None:
            overrides[item.name] = value
    if overrides.get("kind") not in (None, "greedy", "beam", "auto"):
        raise table.error(f"'kind' must be 'greedy', 'beam' or 'auto', got {show(overrides['kind'])}")
    table.finish()
    return overrides


def _result(table: Table) -> Result:
    result = Result(
        test=table.need("test", table.text("test")),
        metric=table.need("metric", table.text("metric")),
        value=table.need("value", table.number("value")),
        interval=table.pair("interval"),
        command=table.text("command") or "",
        source=table.text("source") or "",
    )
    table.finish()
    if bool(result.command) == bool(result.source):
        raise table.error("a figure needs either the 'command' that made it or the 'source' that published it")
    return result
