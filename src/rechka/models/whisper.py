"""Whisper on CTranslate2: encoder, decoder, alignment and tokenizer from one folder. The rules of decoding are ours.

A model's folder holds ``model.bin``, ``config.json``, ``vocabulary.json`` (older ones ``vocabulary.txt``) and
``tokenizer.json``, as ``rechka models convert`` and CTranslate2's own converter write them and as converted models are
published. The number of mel bands is that of the weights, so ``preprocessor_config.json`` is not needed.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rechka.backends.cores import cores
from rechka.decoding.whisper import Alignment, Generated, Search, Special, WhisperOptions
from rechka.decoding.whisper.kernel import Codec, Kernel
from rechka.errors import BadCard, BadModelFile, MissingExtra, ModelNotFound, UsageError
from rechka.features.whisper import FRAMES, POSITION, SAMPLE_RATE, WINDOW, WhisperMel
from rechka.types import F32, Encoded, ModelSpec

COMPUTE_TYPES = (
    "default", "auto", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16",
    "float32",
)  # fmt: skip
CONTEXT = 448
"""Positions of the decoder."""
ENGLISH_END = 50256
"""Id of the end of text in the English-only models, one less than in the others, which have the empty text."""
MAX_TOKENIZER = 64 << 20
REMEDY = "convert the model with: rechka models convert CHECKPOINT --out FOLDER"


SPEC = ModelSpec(
    sample_rate=SAMPLE_RATE,
    hop=POSITION,
    chunk=None,
    shift=None,
    pad=0,
    lag=0,
    max_len=WINDOW,
    tokens=None,
    emits=Encoded,
)
"""Whole phrases in windows of 30 seconds; tokens are the codec's."""


@dataclass(frozen=True)
class WhisperModel:
    """A loaded model: what decodes, what writes tokens as text, and the settings that its card asks for."""

    kernel: Kernel
    codec: Codec
    options: WhisperOptions = field(default_factory=WhisperOptions)
    spec: ModelSpec = SPEC


def load(
    files: Mapping[str, Path], params: Mapping[str, Any], *, device: str = "cpu", threads: int | None = None
) -> WhisperModel:
    """The model of a card.

    Args:
        files: ``model``, ``config``, ``tokenizer``, and ``vocabulary``, all in one folder.
        params: any of ``WhisperOptions``, and ``compute_type``, one of ``COMPUTE_TYPES``.
        device: ``"cpu"`` or ``"cuda"``.
        threads: of one call; None takes the cores that this process may use.

    Raises:
        ModelNotFound: a file is missing.
        BadModelFile: a file that is damaged, or of another kind of model.
        BadCard: parameters that Whisper does not have.
        MissingExtra: CTranslate2 or tokenizers is not installed.
    """
    values = dict(params)
    compute_type = values.pop("compute_type", "default")
    if compute_type not in COMPUTE_TYPES:
        raise BadCard(f"compute_type must be one of {', '.join(COMPUTE_TYPES)}, got {compute_type!r}")
    try:
        options = WhisperOptions.parse(values)
    except UsageError as error:
        raise BadCard(f"the card's parameters do not fit Whisper: {error}") from None
    for role, name in (("model", "model.bin"), ("config", "config.json"), ("tokenizer", "tokenizer.json")):
        if role not in files:
            raise ModelNotFound(f"the card names no {role}, expected {name}", remedy="see docs/whisper.md")
    codec = BpeCodec(files["tokenizer"])
    kernel = CTranslate2Kernel(files["model"], device=device, threads=threads, compute_type=compute_type)
    kernel.check(codec.special)
    return WhisperModel(kernel, codec, options)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra(f"Whisper needs {name}", remedy='pip install "rechka[whisper]"') from None


class CTranslate2Kernel:
    """A ``Kernel`` on CTranslate2. Thread-safe.

    Args:
        path: of ``model.bin``; the other files lie beside it.
        device: ``"cpu"`` or ``"cuda"``.
        threads: of one call; None takes the cores that this process may use.
        compute_type: one of ``COMPUTE_TYPES``; ``"default"`` is that of the file where the device can do it.

    Raises:
        ModelNotFound, BadModelFile, MissingExtra: see ``load``.
        UsageError: a device or type that this machine does not have.
    """

    def __init__(
        self, path: Path, *, device: str = "cpu", threads: int | None = None, compute_type: str = "default"
    ) -> None:
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, got {threads}")
        _check_folder(path)
        self._library = _library("ctranslate2")
        if device == "cuda" and self._library.get_cuda_device_count() == 0:
            raise UsageError(
                "CTranslate2 finds no CUDA device", remedy="it needs the libraries of CUDA 12; or use device cpu"
            )
        supported = self._library.get_supported_compute_types(device)
        if compute_type not in ("default", "auto", *supported):
            raise UsageError(
                f"{device} cannot compute in {compute_type}", remedy=f"it can in {', '.join(sorted(supported))}"
            )
        try:
            self._model = self._library.models.Whisper(
                str(path.parent), device=device, compute_type=compute_type, intra_threads=threads or cores()
            )
        except (RuntimeError, ValueError, MemoryError) as error:
            raise BadModelFile(f"CTranslate2 cannot load {path.parent}: {error}", remedy=REMEDY) from None
        self.device = device
        self.compute_type: str = self._model.compute_type
        self.mel = WhisperMel(self._model.n_mels)

    @property
    def multilingual(self) -> bool:
        """False for the ``.en`` models."""
        return bool(self._model.is_multilingual)

    def check(self, special: Special) -> None:
        """Refuse a tokenizer of another model.

        CTranslate2 takes a model for multilingual if its vocabulary has the empty text, and then counts languages by
        the ids between start and no-speech. A vocabulary that lost that entry would turn every language into English.

        Raises:
            BadModelFile: they do not fit.
        """
        between = special.no_speech - special.start - 6
        if self.multilingual and self._model.num_languages != len(special.languages):
            raise BadModelFile(
                f"the model has {self._model.num_languages} languages, its tokenizer {len(special.languages)}",
                remedy="take tokenizer.json from the model that this one was converted from",
            )
        if not self.multilingual and special.end != ENGLISH_END:
            raise BadModelFile(
                f"the tokenizer has {between} languages, but CTranslate2 takes the model for English only",
                remedy="its vocabulary lost the empty token; " + REMEDY,
            )

    def encode(self, windows: Sequence[F32]) -> list[Any]:
        """See ``Kernel``; an encoded window is an array (1500, D)."""
        features = np.stack([self.mel(window) for window in windows])
        cuda = self.device == "cuda"
        encoded = self._model.encode(self._library.StorageView.from_array(features), to_cpu=cuda)
        if encoded.dtype == self._library.DataType.bfloat16:  # NumPy has none
            encoded = encoded.to(self._library.DataType.float32)
        # Each in memory of its own: a window that waits for a retry does not hold the others.
        return [np.array(row) for row in np.asarray(encoded)]

    def detect_language(self, encoded: Sequence[Any]) -> list[dict[str, float]]:
        """See ``Kernel``."""
        found = self._model.detect_language(self._view(encoded))
        return [{token.strip("<|>"): float(p) for token, p in row} for row in found]

    def generate(self, encoded: Sequence[Any], prompts: Sequence[Sequence[int]], search: Search) -> list[Generated]:
        """See ``Kernel``."""
        size = len(prompts[0])
        # CTranslate2 generates at most half of max_length, and prompt (its last token excepted) and text together are
        # no longer than max_length.
        total = min(CONTEXT, max(2 * search.max_new, search.max_new + size - 1))
        limit = min(total // 2, total - size + 1)
        sampling = search.temperature > 0
        found = self._model.generate(
            self._view(encoded),
            [list(prompt) for prompt in prompts],
            beam_size=1 if sampling else search.beam_size,
            num_hypotheses=search.best_of if sampling else 1,
            sampling_topk=0 if sampling else 1,
            sampling_temperature=search.temperature if sampling else 1.0,
            patience=search.patience,
            length_penalty=search.length_penalty,
            repetition_penalty=search.repetition_penalty,
            no_repeat_ngram_size=search.no_repeat_ngram,
            max_length=total,
            suppress_blank=True,
            suppress_tokens=list(search.suppress),
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._generated(one, limit, search.length_penalty) for one in found]

    @staticmethod
    def _generated(found: Any, limit: int, penalty: float) -> Generated:
        # Scores are divided by the length; hypotheses come best first.
        tokens, score = tuple(int(token) for token in found.sequences_ids[0]), float(found.scores[0])
        logprob = score * len(tokens) ** penalty
        return Generated(tokens, logprob, float(found.no_speech_prob), len(tokens) >= limit)

    def align(
        self, encoded: Sequence[Any], start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Alignment]:
        """See ``Kernel``."""
        # Fewer than two frames leave nothing to align with; before version 4.8.1 that ended the process.
        sizes = [min(max(2, count), FRAMES) for count in frames]
        found = self._model.align(self._view(encoded), list(start), [list(text) for text in texts], sizes)
        return [_alignment(one, len(text)) for one, text in zip(found, texts, strict=True)]

    def _view(self, encoded: Sequence[Any]) -> Any:
        return self._library.StorageView.from_array(np.stack(list(encoded)))


def _alignment(found: Any, size: int) -> Alignment:
    """From the path of pairs (token, position) to the position where each token, and the end, begins."""
    begins = [0] * (size + 1)
    seen = -1
    for token, position in found.alignments:
        if seen < token <= size:
            begins[seen + 1 : token + 1] = [int(position)] * (token - seen)
            seen = token
    if seen < size:
        last = int(found.alignments[-1][1]) if found.alignments else 0
        begins[seen + 1 :] = [last] * (size - seen)
    probs = [float(p) if math.isfinite(p) else 0.0 for p in found.text_token_probs]
    return Alignment(tuple(begins), tuple(probs[:size] + [0.0] * (size - len(probs))))


def _check_folder(path: Path) -> None:
    """The files that CTranslate2 wants, and that the first bytes are those of a Whisper model."""
    if path.name != "model.bin":
        raise BadModelFile(f"CTranslate2 reads a file called model.bin, the card names {path.name}", remedy=REMEDY)
    for name in ("model.bin", "config.json"):
        if not (path.parent / name).is_file():
            raise ModelNotFound(f"{path.parent / name} does not exist", remedy=REMEDY)
    if not any((path.parent / name).is_file() for name in ("vocabulary.json", "vocabulary.txt")):
        raise ModelNotFound(f"{path.parent} has neither vocabulary.json nor vocabulary.txt", remedy=REMEDY)
    with path.open("rb") as file:
        head = file.read(64)
    length = struct.unpack_from("<H", head, 4)[0] if len(head) >= 6 else 0
    kind = head[6 : 6 + length].rstrip(b"\0")
    if kind != b"WhisperSpec":
        shown = kind.decode("ascii", "replace") if kind.isalnum() else "something else"
        raise BadModelFile(f"{path} is no Whisper model for CTranslate2 but {shown}", remedy=REMEDY)
    try:
        config = json.loads((path.parent / "config.json").read_bytes()[:MAX_TOKENIZER])
    except (OSError, ValueError, RecursionError) as error:
        raise BadModelFile(f"{path.parent / 'config.json'} cannot be read: {error}", remedy=REMEDY) from None
    if not isinstance(config, dict):
        raise BadModelFile(f"{path.parent / 'config.json'} should hold an object", remedy=REMEDY)


_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")


class BpeCodec:
    """A ``Codec`` from ``tokenizer.json``.

    Raises:
        ModelNotFound: no such file.
        BadModelFile: no tokenizer, or not Whisper's.
        MissingExtra: tokenizers is not installed.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ModelNotFound(
                f"{path} does not exist", remedy="copy tokenizer.json from the model that this one was converted from"
            )
        if path.stat().st_size > MAX_TOKENIZER:
            raise BadModelFile(f"{path} is larger than {MAX_TOKENIZER} bytes; that is no tokenizer")
        library = _library("tokenizers")
        try:
            self._tokenizer = library.Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  the library raises bare Exception for a bad file
            raise BadModelFile(f"{path} cannot be read: {error}", remedy="get the file again") from None
        self.special = self._special(path)

    def encode(self, text: str) -> list[int]:
        """See ``Codec``; special tokens spelled out in the text are left out, so that no prompt can smuggle them in."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [int(one) for one in ids if self.special.is_text(one)]

    def decode(self, ids: Sequence[int]) -> str:
        """See ``Codec``."""
        return str(self._tokenizer.decode([one for one in ids if self.special.is_text(one)], skip_special_tokens=False))

    def _special(self, path: Path) -> Special:
        def number(*names: str) -> int:
            for name in names:
                found = self._tokenizer.token_to_id(f"<|{name}|>")
                if found is not None:
                    return int(found)
            raise BadModelFile(f"{path} has no token <|{names[0]}|>; it is not Whisper's", remedy="get the right file")

        known = self._tokenizer.get_vocab(with_added_tokens=True)
        start, no_stamps = number("startoftranscript"), number("notimestamps")
        languages = {
            match[1]: int(one) for text, one in known.items() if (match := _LANGUAGE.fullmatch(text)) and one > start
        }
        return Special(
            end=number("endoftext"), start=start, previous=number("startofprev"),
            no_speech=number("nospeech", "nocaptions"), no_stamps=no_stamps, transcribe=number("transcribe"),
            translate=number("translate"), languages=languages, first_stamp=no_stamps + 1,
        )  # fmt: skip
