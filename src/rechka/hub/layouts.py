"""Folders without a card that are known by their files: what other projects publish, used as it is.

Each layout looks at names, and where names are shared, at what the graphs say of themselves. A card is made as soon as
the layout is clear, also when a file is missing: loading then names that file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from rechka.backends.onnx_file import summarise
from rechka.errors import BadModelFile, ModelNotFound
from rechka.hub.card import Card, CardFile


def recognise(folder: Path) -> Card | None:
    """A card for a folder without one, or None if its files are of no known layout."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    for layout in _LAYOUTS:
        if card := layout(folder, names):
            return card
    return None


def card_for(folder: Path, family: str, files: Mapping[str, str], params: Mapping[str, Any], **more: Any) -> Card:
    """A card whose name comes from the folder.

    Args:
        folder: of the model.
        family: a key of ``FAMILIES``.
        files: role -> file name.
        params: of the family.
        more: other fields of the card.
    """
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.absolute().name.lower()).strip("-._")[:64]
    fields = {"language": "ru", "license": "unknown", **more}
    cards = {role: CardFile(path) for role, path in files.items()}
    return Card(name=name or "folder", family=family, files=cards, params=params, **fields)


def metadata(path: Path) -> Mapping[str, str]:
    """What a graph says of itself; nothing if it is no graph, which its family's loader will tell better."""
    try:
        return summarise(path).metadata
    except (BadModelFile, ModelNotFound):
        return {}


def first_of(names: Collection[str], *wanted: str) -> str | None:
    """The first of the wanted names that is there."""
    return next((name for name in wanted if name in names), None)


_GIGAAM = re.compile(
    r"(?P<version>v[123]|multilingual(?:_large)?)_(?P<task>(?:e2e_)?ctc|(?:e2e_)?rnnt|ssl)"
    r"(?P<part>_encoder|_decoder|_joint)?(?:\.\w+)?\.onnx"
)
_GIGAAM_WORDS = re.compile(
    r"(?P<version>v[123]|multilingual(?:_large)?)_((?P<task>e2e_ctc|e2e_rnnt|rnnt)_)?(vocab\.txt|tokenizer\.model)"
)
"""Vocabularies, which tell what is missing when they stand alone."""
_GIGAAM_ORDER = ("rnnt", "ctc", "e2e_rnnt", "e2e_ctc", "ssl")
"""Of several models in one folder the first of these is taken: letters before punctuation, the more accurate first."""


def _gigaam_by_name(folder: Path, names: set[str]) -> Card | None:
    """GigaAM as its own package and onnx-asr name it: ``v2_ctc.onnx``, ``v3_e2e_rnnt_encoder.int8.onnx``."""
    if "emo.onnx" in names:
        params = {"task": "emo", "n_fft": 400, "center": True}
        return card_for(folder, "gigaam", {"model": "emo.onnx"}, params, license="MIT")
    found = {(m["version"], m["task"]) for name in names if (m := _GIGAAM.fullmatch(name))}
    if not found:
        found = {(m["version"], m["task"] or "ctc") for name in names if (m := _GIGAAM_WORDS.fullmatch(name))}
    if not found:
        return None
    version, task = max(found, key=lambda item: (-_GIGAAM_ORDER.index(item[1]), item[0]))
    base = f"{version}_{task}"
    kind = task.removeprefix("e2e_")

    def graph(part: str) -> str:
        plain = f"{base}{part}.onnx"
        other = sorted(name for name in names if name.startswith(f"{base}{part}.") and name.endswith(".onnx"))
        return plain if plain in names or not other else other[0]

    if kind == "rnnt":
        files = {"encoder": graph("_encoder"), "decoder": graph("_decoder"), "joiner": graph("_joint")}
    elif kind == "ssl":
        files = {"encoder": graph("_encoder")}
    else:
        files = {"model": graph("")}
    letters = version in ("v1", "v2", "v3") and not task.startswith("e2e_") and base != "v1_rnnt"
    shared = [f"{version}_vocab.txt"] if letters or version.startswith("multilingual") else []
    own = (f"{base}_vocab.txt", f"{base}_tokenizer.model")
    vocabulary = first_of(names, *own, *shared, "vocab.txt", "tokens.txt", "tokenizer.model")
    if kind != "ssl" and (vocabulary or not letters):  # the letters are known without a file
        files["tokens"] = vocabulary or f"{base}_vocab.txt"
    old = version in ("v1", "v2")
    params = {"task": kind, "n_fft": 400 if old else 320, "center": old}
    return card_for(folder, "gigaam", files, params, license="MIT", decoder=_few(kind))


def _gigaam_of_sherpa(folder: Path, names: set[str]) -> Card | None:
    """GigaAM as sherpa-onnx exports it, told by the metadata ``is_giga_am``; its window by the weights."""
    if "tokens.txt" not in names:
        return None
    tokens = {"tokens": "tokens.txt"}
    model = first_of(names, "model.onnx", "model.int8.onnx")
    if model and metadata(folder / model).get("is_giga_am") == "1":
        return card_for(folder, "gigaam", {"model": model, **tokens}, {"task": "ctc"}, license="MIT")
    encoder = first_of(names, "encoder.onnx", "encoder.int8.onnx")
    if encoder and metadata(folder / encoder).get("is_giga_am") == "1":
        parts = {role: first_of(names, f"{role}.onnx", f"{role}.int8.onnx") for role in ("decoder", "joiner")}
        files = {"encoder": encoder, **{role: name or f"{role}.onnx" for role, name in parts.items()}, **tokens}
        return card_for(folder, "gigaam", files, {"task": "rnnt"}, license="MIT", decoder=_few("rnnt"))
    return None


def _few(kind: str) -> dict[str, int]:
    """Beam search over a transducer asks the network for every hypothesis, so it keeps few."""
    return {"beam_width": 4} if kind == "rnnt" else {}


_PART = re.compile(r"(?P<role>encoder|decoder|joiner)(?P<tag>[A-Za-z0-9_+-][A-Za-z0-9._+-]*?)?(?P<int8>\.int8)?\.onnx")
_GRAPH_FOLDERS = ("", "am-onnx/", "am/", "exp/")
"""sherpa-onnx: all in one folder; Vosk 5: ``am-onnx`` or ``am``; icefall's recipes: ``exp``."""
_TOKEN_FILES = ("tokens.txt", "lang/tokens.txt", "data/lang*/tokens.txt")
_PAUSE_S = 1.2
"""Without a token for so long a phrase is over: sherpa-onnx's rule 2."""
_AROUND_S = 0.2
"""Frames before the first token that greedy search emits, where a beam may find an earlier one."""


def icefall(folder: Path, _names: Collection[str] = (), *, precision: str = "fp32") -> Card | None:
    """A card for a transducer as sherpa-onnx, Vosk 5 and icefall lay it out, or None if there is none.

    The parts are ``encoder*.onnx``, ``decoder*.onnx``, ``joiner*.onnx`` with equal endings; the table ``tokens.txt``.

    Args:
        folder: of the model.
        precision: ``"fp32"`` or ``"int8"``: which is taken where both are there. The decoder, a table, stays fp32.
    Raises:
        ModelNotFound: a model of Vosk before 5, which is Kaldi's and none of ours.
    """
    if (folder / "am" / "final.mdl").is_file():
        raise ModelNotFound(
            f"{folder} is a Kaldi model of Vosk before version 5, which rechka cannot run",
            remedy="take one with am-onnx/encoder.onnx, such as alphacep/vosk-model-ru",
        )
    files = _parts(folder, precision == "int8")
    if files is None:
        return None
    tables = (path.relative_to(folder).as_posix() for name in _TOKEN_FILES for path in sorted(folder.glob(name)))
    files["tokens"] = next(tables, "lang/tokens.txt" if files["encoder"].startswith("am") else "tokens.txt")
    streaming = "decode_chunk_len" in metadata(folder / files["encoder"])
    segmenter = {"min_silence_s": _PAUSE_S, "expand_s": _AROUND_S} if streaming else {}
    decoder = {"beam_width": 4, "length_norm": True}
    language = _language(folder / files["tokens"])
    return card_for(folder, "zipformer", files, {}, language=language, decoder=decoder, segmenter=segmenter)


def _parts(folder: Path, int8: bool) -> dict[str, str] | None:
    """Encoder, decoder and joiner of a folder, or None; a part that is missing has the name that it should have."""
    for place in _GRAPH_FOLDERS:
        found: dict[str, dict[tuple[str, bool], str]] = {}
        for path in sorted((folder / place).glob("*.onnx")):
            if match := _PART.fullmatch(path.name):
                found.setdefault(match["tag"] or "", {})[match["role"], bool(match["int8"])] = place + path.name
        roles = {tag: {role for role, _ in parts} for tag, parts in found.items()}
        # A folder of this name is an icefall model with any one part; elsewhere "encoder.onnx" may be another family's.
        enough = 2 if (folder / "tokens.txt").is_file() else 3
        known = [tag for tag in roles if place == "am-onnx/" or len(roles[tag]) >= enough or "joiner" in roles[tag]]
        if known:
            tag = min(known, key=lambda tag: (-len(roles[tag]), len(tag), tag))
            parts = found[tag]
            return {
                role: parts.get((role, int8 and role != "decoder"))
                or parts.get((role, False))
                or parts.get((role, True), f"{place}{role}{tag}.onnx")
                for role in ("encoder", "decoder", "joiner")
            }
    if (folder / "am" / "jit_script.pt").is_file():  # Vosk 5 without its ONNX part
        return {role: f"am-onnx/{role}.onnx" for role in ("encoder", "decoder", "joiner")}
    return None


def _language(tokens: Path) -> str:
    """Russian if the tokens are Cyrillic, else undetermined: nothing in such a folder tells."""
    try:
        with tokens.open("rb") as file:
            text = file.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return "ru"  # it is missing or unreadable, which loading will say
    return "ru" if any("а" <= letter <= "я" for letter in text.lower()) else "und"


def _whisper(folder: Path, names: set[str]) -> Card | None:
    """Whisper as CTranslate2's converter writes it and others publish it: ``model.bin`` with its vocabulary."""
    listed = first_of(names, "vocabulary.json", "vocabulary.txt")
    if len(names & {"model.bin", "config.json", "tokenizer.json"}) >= 2 and (listed or "model.bin" in names):
        files = {"model": "model.bin", "config": "config.json", "tokenizer": "tokenizer.json"}
        files["vocabulary"] = listed or "vocabulary.json"
        return card_for(folder, "whisper", files, {}, language="mul")
    if "config.json" in names and names & {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}:
        with (folder / "config.json").open("rb") as file:
            said = file.read(1 << 16)
        if re.search(rb'"model_type"\s*:\s*"whisper"', said):
            raise ModelNotFound(
                f"{folder} is a Whisper checkpoint of transformers, which has to be converted first",
                remedy=f"rechka models convert {folder} --out FOLDER",
            )
    return None


_LAYOUTS: tuple[Callable[[Path, set[str]], Card | None], ...] = (_gigaam_by_name, _gigaam_of_sherpa, icefall, _whisper)
