"""Whisper without Whisper: a kernel that follows a script, and tiny models with random weights in published layouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rechka.decoding.whisper.kernel import Alignment, Generated, Search, Special
from rechka.types import F32

LANGUAGES = (
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it", "id", "hi",
    "fi", "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur", "hr", "bg", "lt", "la",
    "mi", "ml", "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn", "et", "mk", "br", "eu", "is", "hy",
    "ne", "mn", "bs", "kk", "sq", "sw", "gl", "mr", "pa", "si", "km", "sn", "yo", "so", "af", "oc", "ka", "be",
    "tg", "sd", "gu", "am", "yi", "lo", "uz", "fo", "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl",
    "mg", "as", "tt", "haw", "ln", "ha", "ba", "jw", "su",
)  # fmt: skip
"""Whisper's 99 languages in the order of their ids."""


_TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")


class WordCodec:
    """A codec for scripts: every word, with the space before it, is a token of its own.

    Args:
        languages: that its model knows.
    """

    def __init__(self, languages: Sequence[str] = ("en", "ru", "uk", "de")) -> None:
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []
        end = 50000
        codes = {code: end + 2 + i for i, code in enumerate(languages)}
        base = end + 2 + len(codes)
        self.special = Special(
            end=end, start=end + 1, languages=codes, translate=base, transcribe=base + 1, previous=base + 3,
            no_speech=base + 4, no_stamps=base + 5, first_stamp=base + 6,
        )  # fmt: skip

    def encode(self, text: str) -> list[int]:
        """One token for each word; a space is put before the first."""
        return [self._id(f" {word}") for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """The words again."""
        return "".join(self._texts[one] for one in ids)

    def stamped(self, *parts: str | float) -> tuple[int, ...]:
        """Tokens of texts and of times in seconds: ``stamped(0.0, "да", 1.5)``."""
        found: list[int] = []
        for part in parts:
            if isinstance(part, str):
                found += self.encode(part)
            else:
                found.append(self.special.stamp(round(part * 50)))
        return tuple(found)

    def _id(self, text: str) -> int:
        if text not in self._ids:
            self._ids[text] = len(self._texts)
            self._texts.append(text)
        return self._ids[text]


TICK_S = 0.1
"""What ``clock`` counts."""


def clock(seconds: float, *, start: float = 0.0, level: float = 0.1) -> F32:
    """Audio at 16 kHz that tells its own time (``Ask.start``): a tone of 220 Hz, or silence with ``level`` 0.

    Far below hearing each sample carries the time, in ticks of a tenth of a second, up to 400 seconds.
    """
    index = np.arange(round(seconds * 16000)) + round(start * 16000)
    tone = np.round(level * np.sin(2 * np.pi * 220.0 * index / 16000), 3)
    samples: F32 = (tone + index // 1600 * 1e-7).astype(np.float32)
    return samples


@dataclass(frozen=True)
class Ask:
    """One window of one call of a script.

    Attributes:
        audio: of the window.
        prompt: tokens.
        search: temperature and so on.
        tries: calls before this one for equal audio.
    """

    audio: F32
    prompt: tuple[int, ...]
    search: Search
    tries: int

    @property
    def start(self) -> float:
        """When the audio begins, seconds, if it comes from ``clock``."""
        value = float(self.audio[0])
        return round((value - round(value, 3)) * 1e7) * TICK_S

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / 16000


@dataclass
class ScriptedKernel:
    """A kernel whose texts come from a function; it records what it was asked.

    Args:
        script: what a window says, asked for each window of each call.
        languages: language probabilities of a window.
        places: where tokens are: positions (len(tokens) + 1) and probabilities, given the audio and the tokens; by
            default spread evenly over the audio, with probability 0.9.
    """

    script: Callable[[Ask], Generated]
    languages: Callable[[F32], Mapping[str, float]] = lambda audio: {"ru": 0.9, "en": 0.1}
    places: Callable[[F32, Sequence[int]], Alignment] | None = None
    multilingual: bool = True
    calls: list[list[Ask]] = field(default_factory=list)
    aligned: list[list[tuple[int, ...]]] = field(default_factory=list)
    encoded: int = 0
    detected: int = 0
    _asked: dict[int, int] = field(default_factory=dict)

    def encode(self, windows: Sequence[F32]) -> list[Any]:
        """The windows themselves."""
        self.encoded += len(windows)
        return [np.array(window) for window in windows]

    def detect_language(self, encoded: Sequence[Any]) -> list[dict[str, float]]:
        """See ``languages``."""
        self.detected += len(encoded)
        return [dict(self.languages(one)) for one in encoded]

    def generate(self, encoded: Sequence[Any], prompts: Sequence[Sequence[int]], search: Search) -> list[Generated]:
        """See ``script``; checks what a real kernel would refuse."""
        assert len({len(prompt) for prompt in prompts}) == 1, "prompts of one call have the same length"
        asks = [Ask(one, tuple(prompt), search, self._tries(one)) for one, prompt in zip(encoded, prompts, strict=True)]
        self.calls.append(asks)
        return [self.script(ask) for ask in asks]

    def align(
        self, encoded: Sequence[Any], start: Sequence[int], texts: Sequence[Sequence[int]], frames: Sequence[int]
    ) -> list[Alignment]:
        """See ``places``."""
        assert all(texts), "there is nothing to align without tokens"
        assert all(2 <= count <= 3000 for count in frames), "frames of the audio"
        self.aligned.append([tuple(text) for text in texts])
        places = self.places or _evenly
        return [places(one[: count * 160], text) for one, text, count in zip(encoded, texts, frames, strict=True)]

    def _tries(self, audio: F32) -> int:
        key = hash(audio.tobytes())
        self._asked[key] = self._asked.get(key, -1) + 1
        return self._asked[key]


def _evenly(audio: F32, tokens: Sequence[int]) -> Alignment:
    size = len(audio) // 320
    return Alignment(tuple(size * i // len(tokens) for i in range(len(tokens) + 1)), (0.9,) * len(tokens))


def toy_tokenizer(texts: Sequence[str] = ()) -> Any:
    """A byte-level BPE of a few hundred tokens with Whisper's special tokens in Whisper's order (``tokenizers``)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    lines = texts or ("раз два три четыре пять шесть семь", "мама мыла раму, а папа читал газету", "привет, как дела?")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # CTranslate2 takes a model for multilingual if its vocabulary has the empty text, as Whisper's has.
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    state = json.loads(tokenizer.to_str())
    state["model"]["vocab"][""] = len(state["model"]["vocab"])
    tokenizer = Tokenizer.from_str(json.dumps(state))
    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES)]
    special += [f"<|{name}|>" for name in _TASKS]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    stamps = [AddedToken(f"<|{i * 0.02:.2f}|>", special=False, normalized=False) for i in range(1501)]
    tokenizer.add_tokens(stamps)
    return tokenizer


def toy_checkpoint(
    *, width: int = 32, layers: int = 2, heads: int = 2, num_mels: int = 80, seed: int = 0, scale: float = 0.25
) -> tuple[dict[str, Any], dict[str, Any], dict[str, F32], Any]:
    """Configuration, generation settings, random weights, tokenizer of a tiny Whisper, named as transformers does."""
    tokenizer = toy_tokenizer()
    vocab: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    size = max(vocab.values()) + 1
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> F32:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    weights: dict[str, F32] = {
        "model.encoder.conv1.weight": draw(width, num_mels, 3), "model.encoder.conv1.bias": draw(width),
        "model.encoder.conv2.weight": draw(width, width, 3), "model.encoder.conv2.bias": draw(width),
        "model.encoder.embed_positions.weight": draw(1500, width),
        "model.decoder.embed_positions.weight": draw(448, width),
        "model.decoder.embed_tokens.weight": draw(size, width),
    }  # fmt: skip

    def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> None:
        weights[f"{name}.weight"] = draw(rows, columns)
        if bias:
            weights[f"{name}.bias"] = draw(rows)

    def norm(name: str) -> None:
        weights[f"{name}.weight"], weights[f"{name}.bias"] = 1 + draw(width), draw(width)

    for part, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])):
        norm(f"model.{part}.layer_norm")
        for i in range(layers):
            base = f"model.{part}.layers.{i}"
            for attention in attentions:
                norm(f"{base}.{attention}_layer_norm")
                for projection in ("q", "k", "v", "out"):
                    linear(f"{base}.{attention}.{projection}_proj", width, width, bias=projection != "k")
            norm(f"{base}.final_layer_norm")
            linear(f"{base}.fc1", 4 * width, width)
            linear(f"{base}.fc2", width, 4 * width)
    config = {
        "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "vocab_size": size,
        "d_model": width, "num_mel_bins": num_mels, "encoder_layers": layers, "decoder_layers": layers,
        "encoder_attention_heads": heads, "decoder_attention_heads": heads, "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width, "max_source_positions": 1500, "max_target_positions": 448,
        "decoder_start_token_id": vocab["<|startoftranscript|>"], "bos_token_id": vocab["<|endoftext|>"],
        "eos_token_id": vocab["<|endoftext|>"], "pad_token_id": vocab["<|endoftext|>"],
    }  # fmt: skip
    generation = {
        "alignment_heads": [[layers - 1, head] for head in range(heads)],
        "suppress_tokens": [vocab[f"<|{name}|>"] for name in ("startoftranscript", "startoflm", "startofprev")],
        "begin_suppress_tokens": [vocab["Ġ"], vocab["<|endoftext|>"]],
        "lang_to_id": {f"<|{code}|>": vocab[f"<|{code}|>"] for code in LANGUAGES},
        "task_to_id": {name: vocab[f"<|{name}|>"] for name in ("transcribe", "translate")},
        "no_timestamps_token_id": vocab["<|notimestamps|>"], "prev_sot_token_id": vocab["<|startofprev|>"],
        "max_initial_timestamp_index": 50, "is_multilingual": True, "max_length": 448,
        "decoder_start_token_id": vocab["<|startoftranscript|>"], "bos_token_id": vocab["<|endoftext|>"],
        "eos_token_id": vocab["<|endoftext|>"], "pad_token_id": vocab["<|endoftext|>"],
    }  # fmt: skip
    return config, generation, weights, tokenizer


def write_checkpoint(folder: Path, **sizes: Any) -> Path:
    """A tiny Whisper with random weights as transformers stores it; ``sizes`` as in ``toy_checkpoint``."""
    from safetensors.numpy import save_file

    config, generation, weights, tokenizer = toy_checkpoint(**sizes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(generation))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write_whisper(folder: Path, *, quantization: str = "float32", **sizes: Any) -> Path:
    """The same as CTranslate2 wants it, without a card."""
    from rechka.export.whisper import Checkpoint, write

    config, generation, weights, tokenizer = toy_checkpoint(**sizes)
    folder.mkdir(parents=True, exist_ok=True)
    write(Checkpoint(config, generation, weights, tokenizer.to_str().encode()), folder, quantization)
    return folder
