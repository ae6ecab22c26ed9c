"""Whisper in torch through transformers, with an assistant: a small Whisper writes ahead, the large one verifies.

Speculative decoding gives the text that the large model writes alone, in fewer of its steps where the small one
guesses right. It is greedy and takes one window at a time; both models must have the same tokens: all multilingual
Whispers up to large-v2 have, large-v3 and turbo have one language more and go with one another. The rules of decoding
are those of every other Whisper here; retries at higher temperatures are sampled by the large model alone.

On a CPU CTranslate2 in 8 bits is several times as fast as torch, and no assistant makes up for that: this is for a GPU
with torch on it. Needs torch and transformers (``pip install "rechka[whisper,train]" "transformers>=5"``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rechka.decoding.whisper import Alignment, Generated, Search, Special, WhisperOptions
from rechka.errors import BadModelFile, IncompatibleParts, MissingExtra, ModelNotFound, UsageError
from rechka.features.whisper import WhisperMel
from rechka.models.whisper import CONTEXT, BpeCodec, WhisperModel
from rechka.types import F32

AHEAD = 5
"""Tokens that the assistant guesses at first; more after it was right, fewer after it was wrong."""
FILTER = 7
"""Positions of the median filter over attention. Source: openai/whisper, timing.py."""


def load(
    checkpoint: str | Path,
    *,
    assistant: str | Path | None = None,
    device: str = "cpu",
    options: WhisperOptions | None = None,
) -> WhisperModel:
    """A model for ``WhisperRecognizer`` or ``rechka.recognizers.assemble``.

        model = load("./whisper-large-v2", assistant="./whisper-small", device="cuda")
        asr = WhisperAsr(assemble(model), name="whisper-large-v2")

    Args:
        checkpoint: folder as transformers stores it, with ``tokenizer.json``.
        assistant: folder of a smaller one with the same tokens.
        device: of torch.
        options: how to decode; with an assistant the first try is greedy whatever ``beam_size`` says.

    Raises:
        ModelNotFound: a folder that lacks a file.
        BadModelFile: files that transformers cannot load.
        IncompatibleParts: an assistant with other tokens.
        UsageError: a device that is not there.
        MissingExtra: transformers is not installed.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("torch finds no CUDA device", remedy="use device cpu")
    codec = BpeCodec(Path(checkpoint) / "tokenizer.json")
    main = _network(Path(checkpoint), device)
    small = None
    if assistant is not None:
        other = BpeCodec(Path(assistant) / "tokenizer.json")
        small = _network(Path(assistant), device)
        if other.special != codec.special or small.config.vocab_size != main.config.vocab_size:
            raise IncompatibleParts(
                f"{assistant} has other tokens than {checkpoint}",
                remedy="take an assistant of the same generation: up to large-v2, or large-v3 and turbo",
            )
    options = options or WhisperOptions()
    if small is not None:
        options = replace(options, beam_size=1)
    return WhisperModel(TorchKernel(main, codec.special, assistant=small), codec, options)


def _network(folder: Path, device: str) -> Any:
    try:
        library = import_module("transformers")
    except ImportError:
        raise MissingExtra("this needs transformers", remedy='pip install "transformers>=5"') from None
    for name in ("config.json", "generation_config.json"):
        if not (folder / name).is_file():
            raise ModelNotFound(f"{folder / name} does not exist", remedy="give a folder that transformers wrote")
    broken = import_module("safetensors").SafetensorError
    try:
        network = library.WhisperForConditionalGeneration.from_pretrained(
            str(folder), local_files_only=True, attn_implementation="eager", use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, broken) as error:
        raise BadModelFile(f"transformers cannot load {folder}: {error}", remedy="get the files again") from None
    return network.to(device).eval()


class TorchKernel:
    """A ``Kernel`` on transformers. Thread-safe as far as torch is.

    Args:
        network: ``WhisperForConditionalGeneration`` with eager attention.
        special: ids.
        assistant: another one that writes ahead.
    """

    def __init__(self, network: Any, special: Special, *, assistant: Any = None) -> None:
        self.network, self.special, self.assistant = network, special, assistant
        self._settings = network.generation_config
        self._mels = {model.config.num_mel_bins for model in (network, assistant) if model is not None}
        self._mel = {num: WhisperMel(num) for num in self._mels}

    @property
    def multilingual(self) -> bool:
        """False for the ``.en`` models."""
        return bool(getattr(self._settings, "is_multilingual", True))

    @torch.inference_mode()
    def encode(self, windows: Sequence[F32]) -> list[Any]:
        """See ``Kernel``; an encoded window is the hidden states (1, 1500, D) of the model and of the assistant."""
        hidden = [self._encoded(self.network, windows)]
        if self.assistant is not None:
            hidden.append(self._encoded(self.assistant, windows))
        return [tuple(one[i : i + 1].clone() for one in hidden) for i in range(len(windows))]

    def _encoded(self, network: Any, windows: Sequence[F32]) -> torch.Tensor:
        mel = self._mel[network.config.num_mel_bins]
        features = torch.from_numpy(np.stack([mel(window) for window in windows]))
        found: torch.Tensor = network.model.encoder(features.to(network.device, network.dtype)).last_hidden_state
        return found

    @torch.inference_mode()
    def detect_language(self, encoded: Sequence[Any]) -> list[dict[str, float]]:
        """See ``Kernel``."""
        logits = self._logits(encoded, [[self.special.start]] * len(encoded)).logits[:, 0].float()
        codes = list(self.special.languages)
        probs = logits[:, [self.special.languages[code] for code in codes]].softmax(-1)
        return [dict(zip(codes, row, strict=True)) for row in probs.tolist()]

    @torch.inference_mode()
    def generate(self, encoded: Sequence[Any], prompts: Sequence[Sequence[int]], search: Search) -> list[Generated]:
        """See ``Kernel``."""
        ids = [list(prompt) for prompt in prompts]
        start = ids[0].index(self.special.start)
        silence = self._logits(encoded, [row[: start + 1] for row in ids]).logits[:, start].float().softmax(-1)
        silences = silence[:, self.special.no_speech].tolist()
        if self.assistant is not None and search.temperature == 0 and search.beam_size == 1:
            found = [self._assisted(row, tokens, search) for row, tokens in zip(encoded, ids, strict=True)]
        else:
            found = self._search(encoded, ids, search)
        return [replace(one, no_speech=float(p)) for one, p in zip(found, silences, strict=True)]

    def _assisted(self, encoded: Any, prompt: list[int], search: Search) -> Generated:
        """Greedy search in which the assistant guesses some tokens, and the model reads them at once.

        Source: Leviathan, Kalman, Matias, "Fast inference from transformers via speculative decoding", 2023.
        """
        size, ahead, total = len(prompt), AHEAD, 0.0
        limit = min(search.max_new, CONTEXT - size)
        rules = self._rules(size, search, stamps=self.special.no_stamps not in prompt)
        large, small = _Steps(self.network, encoded[0]), _Steps(self.assistant, encoded[1])
        tokens = list(prompt)
        while len(tokens) - size < limit and tokens[-1] != self.special.end:
            guess: list[int] = []
            while len(guess) < min(ahead, size + limit - len(tokens) - 1) and self.special.end not in guess:
                guess.append(int(self._ruled(rules, tokens + guess, small.read(tokens + guess, 1)[0]).argmax()))
            scores = large.read(tokens + guess, len(guess) + 1)
            matched = 0
            while True:
                ruled = self._ruled(rules, tokens, scores[matched])
                best = int(ruled.argmax())
                total += float(ruled[best])
                tokens.append(best)
                if matched == len(guess) or best != guess[matched] or best == self.special.end:
                    break
                matched += 1
            ahead = ahead + 2 if matched == len(guess) else max(1, ahead - 1)
        text = tuple(token for token in tokens[size:] if token != self.special.end)
        return Generated(text, total, 0.0, len(text) >= limit)

    def _ruled(self, rules: Any, tokens: Sequence[int], scores: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (V,) of the token after ``tokens``, those that are forbidden being minus infinity."""
        ids = torch.tensor([list(tokens)], device=self.network.device)
        found: torch.Tensor = rules(ids, scores.to(self.network.device, torch.float32)[None])[0].log_softmax(-1)
        return found

    def _search(self, encoded: Sequence[Any], ids: list[list[int]], search: Search) -> list[Generated]:
        """One call of transformers' own search, under Whisper's rules."""
        library = import_module("transformers")
        outputs = import_module("transformers.modeling_outputs").BaseModelOutput
        size = len(ids[0])
        limit = min(search.max_new, CONTEXT - size)
        sampling = search.temperature > 0
        settings = library.GenerationConfig(
            max_new_tokens=limit, do_sample=sampling, num_return_sequences=search.best_of if sampling else 1,
            num_beams=1 if sampling else search.beam_size, length_penalty=search.length_penalty,
            eos_token_id=self.special.end, pad_token_id=self.special.end, decoder_start_token_id=self.special.start,
            return_dict_in_generate=True, output_scores=True,
            **({"temperature": search.temperature, "top_k": 0} if sampling else {}),
        )  # fmt: skip
        plain = import_module("transformers.generation").GenerationMixin.generate  # Whisper's own has other rules
        found = plain(
            self.network,
            encoder_outputs=outputs(last_hidden_state=torch.cat([one[0] for one in encoded])),
            decoder_input_ids=torch.tensor(ids, device=self.network.device),
            generation_config=settings,
            logits_processor=self._rules(size, search, stamps=self.special.no_stamps not in ids[0]),
        )
        scores = self.network.compute_transition_scores(
            found.sequences, found.scores, getattr(found, "beam_indices", None), normalize_logits=search.beam_size == 1
            or sampling,
        )  # fmt: skip
        each = settings.num_return_sequences
        read = [
            self._read(row, score, limit)
            for row, score in zip(found.sequences[:, size:].tolist(), scores.float().tolist(), strict=True)
        ]
        return [
            max(read[i : i + each], key=lambda one: one.logprob / (len(one.tokens) + 1))
            for i in range(0, len(read), each)
        ]

    def _read(self, row: Sequence[int], scores: Sequence[float], limit: int) -> Generated:
        size = next((i for i, token in enumerate(row) if token == self.special.end), len(row))
        # What stands behind the end has no score; the end has one.
        return Generated(tuple(row[:size]), float(np.sum(scores[: size + 1])), 0.0, size >= limit)

    def _rules(self, size: int, search: Search, *, stamps: bool) -> Any:
        processors = import_module("transformers.generation.logits_process")
        forbidden = sorted(
            {one for one in search.suppress if one >= 0}
            | set((self._settings.suppress_tokens or []) if -1 in search.suppress else [])
        )
        first = list(getattr(self._settings, "begin_suppress_tokens", None) or [])
        device = self.network.device
        rules = [processors.SuppressTokensLogitsProcessor(forbidden, device=device)] if forbidden else []
        if first:
            rules.append(processors.SuppressTokensAtBeginLogitsProcessor(first, size, device=device))
        if search.repetition_penalty != 1.0:
            rules.append(processors.RepetitionPenaltyLogitsProcessor(search.repetition_penalty))
        if search.no_repeat_ngram:
            rules.append(processors.NoRepeatNGramLogitsProcessor(search.no_repeat_ngram))
        if stamps:
            rules.append(processors.WhisperTimeStampLogitsProcessor(self._settings, begin_index=size))
        return processors.LogitsProcessorList(rules)

    @torch.inference_mode()
    def align(
        self, encoded: Sequence[Any], start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Alignment]:
        """See ``Kernel``."""
        return [
            self._aligned(one, [*start, self.special.no_stamps], list(text), max(1, count // 2))
            for one, text, count in zip(encoded, texts, frames, strict=True)
        ]

    def _aligned(self, encoded: Any, head: list[int], text: list[int], positions: int) -> Alignment:
        found = self._logits([encoded], [[*head, *text, self.special.end]], output_attentions=True)
        size = len(text)
        rows = slice(len(head) - 1, len(head) - 1 + size)
        probs = found.logits[0, rows, : self.special.end].float().softmax(-1)
        told = [float(probs[i, token]) for i, token in enumerate(text)]
        weights = torch.stack([found.cross_attentions[layer][0, h] for layer, h in self._heads()]).float()
        weights = weights[..., :positions]
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-12)
        deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        weights = (weights - mean) / deviation.clamp_min(1e-12)
        cost = -median_filtered(weights.cpu().numpy()).mean(axis=0)[len(head) - 1 : -1]
        return Alignment(tuple(begins(cost)), tuple(told))

    def _heads(self) -> list[tuple[int, int]]:
        """Those that follow the audio; unless they are known, all of the upper half of the layers."""
        known = getattr(self._settings, "alignment_heads", None)
        if known:
            return [(int(layer), int(head)) for layer, head in known]
        config = self.network.config
        upper = range(config.decoder_layers // 2, config.decoder_layers)
        return [(layer, head) for layer in upper for head in range(config.decoder_attention_heads)]

    def _logits(self, encoded: Sequence[Any], ids: Sequence[Sequence[int]], **more: Any) -> Any:
        outputs = import_module("transformers.modeling_outputs").BaseModelOutput
        return self.network(
            encoder_outputs=outputs(last_hidden_state=torch.cat([one[0] for one in encoded])),
            decoder_input_ids=torch.tensor([list(row) for row in ids], device=self.network.device),
            use_cache=False,
            **more,
        )


class _Steps:
    """A decoder that remembers what it has read of one window."""

    def __init__(self, network: Any, hidden: torch.Tensor) -> None:
        caches = import_module("transformers.cache_utils")
        self._network, self._seen = network, list[int]()
        self._encoded = import_module("transformers.modeling_outputs").BaseModelOutput(last_hidden_state=hidden)
        self._cache = caches.EncoderDecoderCache(caches.DynamicCache(), caches.DynamicCache())

    def read(self, tokens: Sequence[int], count: int) -> torch.Tensor:
        """Scores (count, V) of what follows each of the last ``count`` of the tokens."""
        known = 0
        while known < min(len(self._seen), len(tokens) - count) and self._seen[known] == tokens[known]:
            known += 1
        if known < len(self._seen):
            self._cache.self_attention_cache.crop(known - len(self._seen))  # below zero: so many go
        found = self._network(
            encoder_outputs=self._encoded,
            decoder_input_ids=torch.tensor([list(tokens[known:])], device=self._network.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._seen = list(tokens)
        scores: torch.Tensor = found.logits[0, -count:]
        return scores


def median_filtered(values: F32) -> F32:
    """Each row (..., n) with the median of ``FILTER`` neighbours; rows shorter than that are left as they are."""
    half = FILTER // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    found: F32 = np.median(np.lib.stride_tricks.sliding_window_view(padded, FILTER, axis=-1), axis=-1)
    return found


def begins(cost: F32) -> list[int]:
    """The position where each row (tokens, positions) begins on the cheapest path from corner to corner.

    Steps go to the next token, the next position, or both. Cells of a diagonal do not depend on one another, so they
    are computed at once.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        total[i, j] = cost[i - 1, j - 1] + np.minimum(np.minimum(total[i - 1, j - 1], total[i - 1, j]), total[i, j - 1])
    found = [0] * rows
    i, j = rows, columns
    while i > 0 and j > 0:
        found[i - 1] = j - 1  # the last one written is the first of the row
        both, down, right = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        if both <= down and both <= right:
            i, j = i - 1, j - 1
        elif down <= right:
            i -= 1
        else:
            j -= 1
    return found
