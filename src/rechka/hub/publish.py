"""A model's folder to the Hugging Face Hub: what would be sent, and sending it when that was asked for.

Only what the card names goes, with the card and its page: no training state, no configuration with the paths of this
machine. Uploads go through ``huggingface_hub``, which knows the Hub's stores for large files; downloads do not need it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rechka.errors import (
    BadModelFile,
    ChecksumMismatch,
    HubError,
    HubForbidden,
    HubNotFound,
    HubUnreachable,
    MissingExtra,
    ModelNotFound,
    Offline,
    UsageError,
)  # fmt: skip
from rechka.hub.card import Card
from rechka.hub.registry import CARD_FILE
from rechka.hub.remote import Hub

PAGE = "README.md"
"""What the Hub shows."""
MODEL_CARD = "MODEL_CARD.md"
CHECKPOINT = "transformers"
"""Folder with the weights for further training."""
MAX_PAGE = 1 << 20
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+ ()-]{0,99}")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One file: its path in the repository, and its content or where that lies."""

    path: str
    content: bytes | Path
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be sent.

    Attributes:
        repo: ``owner/name``.
        card: as it will be in the repository.
        files: in the order of their paths.
        left_out: what else lies in the folder.
    """

    repo: str
    card: Card
    files: tuple[Outgoing, ...]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes altogether."""
        return sum(file.size for file in self.files)


def plan(folder: str | Path, repo: str, *, license: str = "", checkpoint: bool = False) -> Plan:
    """What publishing a folder would send. Reads the files, since their sums must fit the card; asks no network.

    Args:
        folder: with ``card.toml``, as ``rechka finetune`` and ``rechka models convert`` make it.
        repo: ``owner/name``.
        license: SPDX expression, where the card does not know it.
        checkpoint: also send ``transformers``, the weights for further training.

    Raises:
        UsageError: a repository's name or licence that cannot be one.
        ModelNotFound, BadCard: no card, or a file that it names is missing.
        ChecksumMismatch: a file is not what the card says.
    """
    folder = Path(folder)
    if not _REPO.fullmatch(repo):
        raise UsageError(f"the repository must be owner/name, got {repo!r}", remedy="such as --to someone/my-whisper")
    if license and not _LICENSE.fullmatch(license):
        raise UsageError(f"{license!r} is no licence", remedy="give its SPDX name, such as MIT or Apache-2.0")
    if not (folder / CARD_FILE).is_file():
        raise ModelNotFound(
            f"{folder} has no {CARD_FILE}", remedy="name a folder that rechka finetune or rechka models convert made"
        )
    card = Card.read(folder / CARD_FILE)
    card = replace(card, repo=repo, revision="", license=license or card.license)
    found: dict[str, Outgoing] = {}
    for file in card.files.values():
        path = folder / file.path
        if not path.is_file():
            if file.optional:
                continue
            raise ModelNotFound(f"{path} is missing, which the card names", remedy="make or pull the model again")
        size = path.stat().st_size
        if (file.size is not None and file.size != size) or (file.sha256 and file.sha256 != _sha256(path)):
            raise ChecksumMismatch(f"{path} is not the file of the card", remedy="make or pull the model again")
        found[file.path] = Outgoing(file.path, path, size)
    if checkpoint:
        found |= _checkpoint(folder)
    for name, text in ((CARD_FILE, card.to_toml()), (PAGE, _page(folder, card))):
        content = text.encode("utf-8")
        found[name] = Outgoing(name, content, len(content))
    known = {*found, MODEL_CARD}
    others = sorted(
        item.name + ("/" if item.is_dir() else "")
        for item in folder.iterdir()
        if item.name not in known and not any(path.startswith(f"{item.name}/") for path in found)
    )
    return Plan(repo, card, tuple(found[path] for path in sorted(found)), tuple(others))


def send(what: Plan, *, private: bool = False, hub: Hub | None = None) -> str:
    """Make the repository if there is none, and put the files into it as one commit.

    Args:
        what: see ``plan``.
        private: of a repository that is made.
        hub: where to; None takes that of the environment: ``HF_ENDPOINT``, ``HF_TOKEN``.

    Returns:
        Address of the commit.
    Raises:
        UsageError: the licence is not known.
        MissingExtra: ``huggingface_hub`` is not installed.
        HubError: see ``_told``; Offline if the network is switched off.
    """
    hub = hub or Hub.from_environment()
    if what.card.license == "unknown":
        raise UsageError(
            "the card says no licence, and nobody may use a model without one",
            remedy="give that of the model and the recordings it was made from: --license MIT",
        )
    if hub.offline:
        raise Offline("nothing was sent, because the network is switched off", remedy="unset RECHKA_OFFLINE")
    if not hub.token:
        raise HubForbidden(
            "sending needs a token with the right to write",
            remedy="make one in the Hub's settings and set HF_TOKEN to it",
        )
    try:
        from huggingface_hub import CommitOperationAdd, HfApi
    except ImportError:
        raise MissingExtra("publishing needs huggingface_hub", remedy='pip install "rechka[publish]"') from None
    api = HfApi(endpoint=hub.endpoint, token=hub.token, library_name="rechka")
    adds = [CommitOperationAdd(file.path, _source(file)) for file in what.files]
    with _told(hub.endpoint):
        api.create_repo(what.repo, repo_type="model", private=private, exist_ok=True)
        done = api.create_commit(what.repo, adds, commit_message=f"{what.card.name}, sent by rechka publish")
    return str(done.commit_url)


def _source(file: Outgoing) -> bytes | str:
    return file.content if isinstance(file.content, bytes) else str(file.content)


def _checkpoint(folder: Path) -> dict[str, Outgoing]:
    place = folder / CHECKPOINT
    if not place.is_dir():
        raise ModelNotFound(f"{folder} has no folder {CHECKPOINT}", remedy="only fine-tuned Whisper models have one")
    files = [item for item in sorted(place.iterdir()) if item.is_file() and not item.is_symlink()]
    return {
        f"{CHECKPOINT}/{item.name}": Outgoing(f"{CHECKPOINT}/{item.name}", item, item.stat().st_size) for item in files
    }


def _page(folder: Path, card: Card) -> str:
    """The page of the model: its own with the licence of the card in its head, or a short one."""
    path = folder / MODEL_CARD
    if path.is_file():
        if path.stat().st_size > MAX_PAGE:
            raise BadModelFile(f"{path} is larger than {MAX_PAGE} bytes; that is no page")
        text = path.read_text("utf-8", errors="replace")
    else:
        about = card.describe("en") or card.title.get("en", "")
        text = (
            f'---\nlanguage: ["{card.language}"]\npipeline_tag: "automatic-speech-recognition"\n'
            f'tags: ["rechka"]\n---\n\n# {card.name}\n\n{about}\n'
        )
    head = f"license: {json.dumps(card.license.lower())}"
    if card.license != "unknown" and text.startswith("---\n") and "\nlicense:" not in text.partition("\n---\n")[0]:
        text = text.replace("---\n", f"---\n{head}\n", 1)
        text = text.replace("Licence: unknown,", f"Licence: {card.license},")
    return text.replace("--model FOLDER", f"--model {card.repo.partition('/')[2]}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _told(endpoint: str) -> Iterator[None]:
    """What the Hub or the way to it refuses, as errors of ours.

    Raises:
        HubForbidden: the token may not write there; HubNotFound: no such owner; HubUnreachable: no answer, or a fault
            of the Hub; HubError: anything else it refuses.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the latter of the library that it asks with
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        yield
    except HfHubHTTPError as error:
        raise _refusal(endpoint, error.response, str(error)) from None
    except (HTTPError, OSError) as error:
        raise HubUnreachable(f"{endpoint} cannot be reached or broke off ({error})", remedy=_AGAIN) from None
    except (RuntimeError, ValueError) as error:  # what the library makes of a store that refuses a file
        cause: Any = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _refusal(endpoint, cause.response, str(cause)) from None
        raise HubError(f"{endpoint}: {' '.join(str(error).split())[:300]}", remedy=_AGAIN) from None


_AGAIN = "run it again; files that the Hub has already are not sent twice"


def _refusal(endpoint: str, response: Any, said: str) -> HubError:
    status = response.status_code if response is not None else 0
    text = f"{endpoint} answers HTTP {status}: {' '.join(said.split())[:200]}"
    if status in (401, 403):
        return HubForbidden(text, remedy="the token in HF_TOKEN may not write there; make one that may")
    if status == 404:
        return HubNotFound(text, remedy="check the owner's name in --to")
    if status in (408, 429) or status >= 500:
        return HubUnreachable(text, remedy=_AGAIN)
    return HubError(text, remedy="check the name in --to")
