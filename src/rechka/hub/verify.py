"""Whether the files on disk are the files they should be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rechka.hub.card import CardFile
from rechka.hub.download import sha256_of
from rechka.hub.registry import Entry

GOOD = ("ok", "left out", "no sum known")
"""States that are no fault."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One file of a model.

    Attributes:
        role, path: which file.
        state: ``"ok"``; ``"left out"`` (optional and not there); ``"no sum known"`` (there, nothing to compare with);
            or a fault: ``"missing"``, ``"wrong size"``, ``"wrong sha256"``.
        size, sha256: found; None if not there.
        expected_size, expected_sha256: by the card, else by the record of the pull; None if unknown.
    """

    role: str
    path: Path
    state: str
    size: int | None
    sha256: str | None
    expected_size: int | None
    expected_sha256: str | None

    @property
    def good(self) -> bool:
        """False for a fault."""
        return self.state in GOOD


def verify(entry: Entry) -> list[Verified]:
    """All files of a model, read in full.

    Raises:
        BadCard: the record of the pull is damaged.
        OSError: a file is there but cannot be read.
    """
    lock = entry.lock()
    return [_verify(role, entry.path(role), entry.expected(role, lock)) for role in entry.card.files]


def _verify(role: str, path: Path, expected: CardFile) -> Verified:
    def outcome(state: str, size: int | None = None, sha256: str | None = None) -> Verified:
        return Verified(role, path, state, size, sha256, expected.size, expected.sha256)

    if not path.is_file():
        return outcome("left out" if expected.optional else "missing")
    size = path.stat().st_size
    if expected.size is not None and size != expected.size:
        return outcome("wrong size", size)
    found = sha256_of(path)
    if expected.sha256 is None:
        return outcome("no sum known", size, found)
    return outcome("ok" if found == expected.sha256 else "wrong sha256", size, found)
