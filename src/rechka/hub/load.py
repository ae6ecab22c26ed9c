"""From a name, a folder or a card to something that transcribes."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rechka.backends import REMOTE
from rechka.errors import ChecksumMismatch, MissingExtra, ModelNotFound
from rechka.hub.card import FAMILIES
from rechka.hub.registry import EMBEDDED, PREFERRED, Entry, find
from rechka.options import DecoderOptions

if TYPE_CHECKING:
    from rechka.protocols import AcousticModel
    from rechka.recognizers import Asr


def load(
    model: str | Path | None = None,
    *,
    refine: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    decoder: DecoderOptions | None = None,
    offline: bool | None = None,
) -> Asr:
    """A model that is ready to transcribe.

    Args:
        model: a name (``rechka models list``), a folder, or the path of a card. None takes ``t-one`` if it is on disk,
            else the embedded model; ``asr.note`` then says so in a sentence for the user.
        refine: a second model, named in the same ways, that reads every phrase again when it is closed; where it knows
            better a ``Refined`` event follows, and transcripts hold its text.
        device: ``"cpu"``, ``"cuda"``, or ``"triton://HOST:PORT"`` for a server that has the model under the card's name
            (``rechka export``); its files must be on disk here, too.
        threads: threads of one model step; None lets the backend choose.
        decoder: of ``model``, instead of the card's settings, which by default are beam search where there is a
            language model on disk or hotwords are given, and greedy search elsewhere.
        offline: False pulls what is missing. None and True never touch the network.
    Raises:
        ModelNotFound: an unknown name, or files that are not on disk.
        BadCard, BadModelFile, ChecksumMismatch, BadLanguageModel, IncompatibleParts: files that cannot be used.
        HubError: with ``offline=False``, a download that did not succeed.
        MissingExtra: an optional dependency that the model needs is not installed.
    """
    entry, note = choose() if model is None else (find(model), "")
    if entry.missing():
        if offline is not False or not entry.card.repo:
            raise not_on_disk(entry)
        from rechka.hub.download import pull
        from rechka.hub.remote import Hub

        pull(entry, hub=Hub.from_environment(offline=False))
    asr = put_together(entry, device=device, threads=threads, decoder=decoder)
    asr.note = note
    if refine is None:
        return asr
    from rechka.recognizers import two_pass

    return two_pass(asr, load(refine, device=device, threads=threads, offline=offline))


def choose() -> tuple[Entry, str]:
    """The default model, and what to tell the user about the choice."""
    preferred = find(PREFERRED)
    if preferred.ready:
        return preferred, ""
    try:
        embedded = find(EMBEDDED)
    except ModelNotFound:
        return preferred, ""  # whoever loads it learns that it is not on disk
    return embedded, (
        f"using {EMBEDDED}, the small model inside the package, because {PREFERRED} is not on disk; "
        f"for much better text: rechka models pull {PREFERRED}"
    )


def put_together(
    entry: Entry, *, device: str = "cpu", threads: int | None = None, decoder: DecoderOptions | None = None
) -> Asr:
    """The model of an entry whose required files are on disk. Arguments and errors as ``load``."""
    from rechka.recognizers import Asr, assemble, default_segmenter
    from rechka.recognizers.whisper import WhisperAsr, WhisperRecognizer

    card, files = entry.card, entry.on_disk()
    if device.startswith(REMOTE) and "/" not in device[len(REMOTE) :].rstrip("/"):
        device = f"{device.rstrip('/')}/{card.name}"
    _check_sizes(entry)
    try:
        loaded = import_module(FAMILIES[card.family]).load(files, card.params, device=device, threads=threads)
    except MissingExtra as error:
        if device.startswith("cuda") and (hint := with_weights(entry)):
            raise MissingExtra(error.message, remedy=f"{error.remedy}; or let torch do it: {hint}") from None
        raise
    acoustic = cast("AcousticModel", loaded)
    if decoder is None:
        decoder = DecoderOptions(**{"kind": "auto", **card.decoder})
    lm = None
    if "lm" in files and decoder.kind != "greedy":
        from rechka.decoding.lm import load_lm

        lm = load_lm(files["lm"])
    segmenter = replace(default_segmenter(acoustic.spec), **card.segmenter)
    recognizer = assemble(acoustic, decoder=decoder, segmenter=segmenter, lm=lm, calibration=card.confidence)
    if isinstance(recognizer, WhisperRecognizer):
        return WhisperAsr(recognizer, name=card.name, language=recognizer.options.language or card.language)
    return Asr(recognizer, name=card.name, language=card.language)


def with_weights(entry: Entry) -> str:
    """The command that brings the weights that torch takes, if they are published and not on disk; else empty."""
    file = entry.card.files.get("weights")
    if file is None or not entry.card.repo or entry.origin == "folder" or entry.path("weights").is_file():
        return ""
    return f"rechka models pull {entry.card.name} --with weights"


def not_on_disk(entry: Entry) -> ModelNotFound:
    """The error for a model whose card is known but whose files are not there."""
    name = entry.card.name
    missing = ", ".join(str(entry.path(role)) for role in entry.missing())
    if entry.card.repo and entry.origin != "folder":
        remedy = f"get it with: rechka models pull {name}; or leave the model out to use the embedded one"
    elif entry.card.originals and entry.origin != "folder":
        remedy = f"only a checkpoint is published: rechka models pull {name} gets it and says how to convert it"
    else:
        remedy = "put the files there, or correct the card"
    return ModelNotFound(f"model {name!r} is not on disk: {missing} does not exist", remedy=remedy)


def _check_sizes(entry: Entry) -> None:
    """A truncated file is told here, not by a riddle of the backend. The sums are for ``rechka models verify``."""
    lock = entry.lock()
    for role, path in entry.on_disk().items():
        size, found = entry.expected(role, lock).size, path.stat().st_size
        if size is not None and found != size:
            raise ChecksumMismatch(
                f"{path} has {found} bytes, expected {size}",
                remedy=f"get it again: rechka models pull {entry.card.name} --update"
                if entry.card.repo
                else "copy the file again",
            )
