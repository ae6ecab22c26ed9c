"""Whisper as something that is trained: which weights move, features, loss over a text with its prompt, greedy text.

Shapes: B windows, n samples, M mel bands, U tokens of prompt and text, V tokens.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rechka.errors import BadModelFile, DataError, UsageError
from rechka.features.whisper import FRAMES, HOP, LOWEST_POWER, N_FFT, POSITION, RANGE, SAMPLE_RATE, WINDOW, filter_bank
from rechka.models.whisper import CONTEXT, BpeCodec
from rechka.train.finetune.learners import Ids, Learner
from rechka.train.whisper.checkpoint import check_task, generation_for, open_codec, read_config, read_generation
from rechka.train.whisper.config import TuneOptions, WhisperConfig
from rechka.types import F32

MOST_NEW = 224
"""Tokens that a decoding writes at most: half of the decoder's context. Longer texts are left out of the training."""
IGNORED = -100
"""Label of what is not learned, as torch's cross-entropy has it."""


class WhisperTargets:
    """Texts as Whisper writes them: case and punctuation kept, a space before the first word, ids without specials."""

    def __init__(self, codec: BpeCodec) -> None:
        self.codec = codec

    def normalise(self, text: str) -> str:
        """Composed letters, single spaces."""
        return " ".join(unicodedata.normalize("NFC", text).split())

    def encode(self, text: str) -> list[int]:
        """Ids of a text; none of an empty one.

        Raises:
            DataError: more tokens than a window can be read with.
        """
        text = self.normalise(text)
        ids = self.codec.encode(f" {text}") if text else []
        if len(ids) > MOST_NEW - 2:
            raise DataError(
                f"{text!r:.60} has {len(ids)} tokens, a window holds {MOST_NEW - 2}", remedy="cut the recording"
            )
        return ids

    def decode(self, ids: Ids) -> str:
        """Text of ids, stamps and specials left out."""
        return self.codec.decode(ids).strip()


class Trainable(nn.Module):
    """A model with its trained parameters in front: parameters, states and copies hold these and nothing else.

    So checkpoints of adapters are small, and the averaged model shares with the trained one all that does not move.

    Args:
        model: of transformers or peft.
        names: of the parameters that are trained; None takes those that ask for gradients.
    """

    def __init__(self, model: nn.Module, names: frozenset[str] | None = None) -> None:
        super().__init__()
        self.model = model
        wanted = names if names is not None else {name for name, p in model.named_parameters() if p.requires_grad}
        self.names = frozenset(wanted)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Those that are trained, by their names in the model."""
        return ((name, p) for name, p in self.model.named_parameters(*args, **kwargs) if name in self.names)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The same as tensors."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        """Put tensors into the parameters of these names.

        Raises:
            RuntimeError: other names or shapes, as torch does.
        """
        own = dict(self.named_parameters())
        if set(own) != set(state):
            raise RuntimeError(f"the state has other parameters: {sorted(set(own) ^ set(state))[:3]}")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != state[name].shape:
                    raise RuntimeError(
                        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(parameter.shape)}"
                    )
                parameter.copy_(state[name])

    def __deepcopy__(self, memo: dict[int, Any]) -> Trainable:
        memo |= {id(p): p for name, p in self.model.named_parameters() if name not in self.names}
        return Trainable(copy.deepcopy(self.model, memo), self.names)


class WhisperLearner(Learner):
    """Whisper with what a run needs.

    Args:
        module: the weights.
        codec: the tokenizer.
        folder: checkpoint that it came from.
        options: of the run.
        generation: see ``generation_for``.
        num_layers: of the encoder.
    """

    family = "whisper"
    sample_rate = SAMPLE_RATE
    frame = POSITION
    module: Trainable

    def __init__(
        self, module: Trainable, codec: BpeCodec, folder: Path, options: TuneOptions, generation: dict[str, Any],
        num_layers: int, num_mels: int,
    ) -> None:  # fmt: skip
        self.module, self.codec, self.folder, self.options = module, codec, folder, options
        self.generation, self.num_layers, self.num_mels = generation, num_layers, num_mels
        self.targets = WhisperTargets(codec)  # type: ignore[assignment]
        self._never = [*codec.special.unwritten, *codec.special.languages.values(), codec.special.no_stamps]
        self._never += [codec.special.stamp(i) for i in range(codec.special.num_stamps)]

    def with_module(self, module: nn.Module) -> WhisperLearner:
        """The same around other weights."""
        assert isinstance(module, Trainable)
        return WhisperLearner(
            module, self.codec, self.folder, self.options, self.generation, self.num_layers, self.num_mels
        )

    def depth(self, name: str) -> int:
        """How far up a parameter is: 0 before the encoder's layers, 1 ... n in them, n + 1 in the decoder."""
        if match := re.search(r"encoder\.layers\.(\d+)\.", name):
            return 1 + int(match[1])
        if re.search(r"encoder\.(conv|embed)", name):
            return 0
        return self.num_layers + (0 if "encoder.layer_norm" in name else 1)

    def laid_out(self, samples: F32, rng: np.random.Generator | None) -> F32:
        """The samples themselves: windows are filled with silence where batches are made."""
        return samples

    def num_frames(self, samples: int) -> int:
        """Positions of the encoder."""
        return samples // POSITION

    def possible(self, frames: int, ids: Ids) -> bool:
        """Whether a window holds so much audio; texts are measured by the targets."""
        return frames <= WINDOW // POSITION

    def prompt(self, stamps: bool) -> list[int]:
        """Start, language, task, and whether there are time stamps: what decoding begins with."""
        special = self.codec.special
        task = special.transcribe if self.options.task == "transcribe" else special.translate
        return [special.start, special.languages[self.options.language], task, *([] if stamps else [special.no_stamps])]

    def features(self, audio: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n) samples and their numbers to (B, 3000, M) features, and how many of them are not of silence behind.

        The same numbers as ``rechka.features.whisper.WhisperMel``, on the device of the model.
        """
        window = torch.hann_window(N_FFT, device=audio.device)
        longest = min(WINDOW, int(lengths.max()) + N_FFT)  # what is behind is silence, whose power is known
        heard = functional.pad(audio[:, :longest], (0, max(0, longest - audio.shape[1])))
        spectrum = torch.stft(heard, N_FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
        bank = torch.from_numpy(np.array(filter_bank(self.num_mels))).to(audio.device)
        power = bank @ spectrum[..., :FRAMES].abs().square()
        power = functional.pad(power, (0, FRAMES - power.shape[2]))
        log = power.clamp(min=LOWEST_POWER).log10()
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - RANGE)
        return ((log + 4.0) / 4.0).transpose(1, 2), (lengths + HOP - 1) // HOP

    def losses(self, features: Tensor, counts: Tensor, labels: Sequence[Ids]) -> Tensor:
        """(B,) natural-log losses of token sequences, prompts included; what stands before the start is not learned.

        The decoder is given each sequence without its last token and predicts it without its first: the start of the
        transcript is there exactly once, and the end is learned.
        """
        start, end = self.codec.special.start, self.codec.special.end
        given = torch.full((len(labels), max(map(len, labels)) - 1), end, dtype=torch.long)
        wanted = torch.full_like(given, IGNORED)
        for row, ids in enumerate(labels):
            sequence = torch.tensor(ids, dtype=torch.long)
            first = list(ids).index(start)
            given[row, : len(ids) - 1] = sequence[:-1]
            wanted[row, first : len(ids) - 1] = sequence[first + 1 :]
        device = features.device
        output = self.module.model(
            input_features=features.transpose(1, 2), decoder_input_ids=given.to(device), use_cache=False
        )
        loss = functional.cross_entropy(
            output.logits.float().transpose(1, 2), wanted.to(device), ignore_index=IGNORED, reduction="none"
        )
        return loss.sum(dim=1)

    @torch.no_grad()
    def read(self, features: Tensor, counts: Tensor) -> list[str]:
        """The text of each window: greedy search without time stamps, like the converted model."""
        return [self.targets.decode(ids) for ids in self.search(features)]

    def search(self, features: Tensor) -> list[list[int]]:
        """Ids of each window without prompt and end."""
        model, end = self.module.model, self.codec.special.end
        prompt = self.prompt(stamps=False)
        never = torch.tensor(sorted({*self._never, *(self.generation.get("suppress_tokens") or [])}))
        first = torch.tensor(sorted(set(self.generation.get("begin_suppress_tokens") or [])), dtype=torch.long)
        encoded = model.get_encoder()(features.transpose(1, 2))
        given = torch.tensor([prompt] * len(features), device=features.device)
        found: list[list[int]] = [[] for _ in range(len(features))]
        alive, memory = torch.ones(len(features), dtype=torch.bool), None
        most = min(MOST_NEW, int(self.generation.get("max_length") or CONTEXT) - len(prompt))
        for step in range(most):
            output = model(encoder_outputs=encoded, decoder_input_ids=given, past_key_values=memory, use_cache=True)
            memory, logits = output.past_key_values, output.logits[:, -1].float().cpu()
            logits[:, never] = -torch.inf
            if step == 0:
                logits[:, first] = -torch.inf
            best = logits.argmax(dim=1)
            alive &= best != end
            for row in alive.nonzero().flatten().tolist():
                found[row].append(int(best[row]))
            if not alive.any():
                break
            given = torch.where(alive, best, end)[:, None].to(features.device)
        return found

    def merged(self) -> dict[str, Tensor]:
        """All weights by their names in transformers, adapters multiplied into what they adapt."""
        model: Any = self.module.model
        if self.options.lora:
            model = copy.deepcopy(model).merge_and_unload()
        weights = dict(model.state_dict())
        if model.config.tie_word_embeddings:
            weights.pop("proj_out.weight", None)
        return weights


def open_whisper(folder: Path, config: WhisperConfig) -> WhisperLearner:
    """A checkpoint, ready to be trained.

    Raises:
        BadModelFile: weights and configuration that do not fit.
        ModelNotFound: no tokenizer.
        UsageError: a language that the model does not know, or layers for adapters that it does not have.
    """
    from safetensors import SafetensorError
    from transformers import WhisperForConditionalGeneration

    options = config.whisper
    codec = open_codec(folder, config.tokenizer)
    base = read_generation(folder)
    check_task(codec, options.language, base)
    raw = read_config(folder)
    try:
        model, notes = WhisperForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, attn_implementation="sdpa", output_loading_info=True,
            dropout=options.dropout, apply_spec_augment=False,
        )  # fmt: skip
    except (
        OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError, EOFError, SafetensorError,
        UnpicklingError,
    ) as error:  # fmt: skip
        raise BadModelFile(f"{folder} is no checkpoint of Whisper: {str(error).splitlines()[0]:.200}") from None
    missing = [name for name in notes["missing_keys"] if "proj_out" not in name]
    if missing or notes["mismatched_keys"]:
        raise BadModelFile(
            f"{folder} lacks weights: {', '.join([*map(str, missing), *map(str, notes['mismatched_keys'])][:3])}",
            remedy="an adapter must be merged first",
        )
    model.model.encoder.embed_positions.requires_grad_(False)  # sinusoids
    if config.whisper.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if options.lora:
        model = _adapted(model, options)
    generation = generation_for(base, raw, codec, options.language, options.task)
    return WhisperLearner(
        Trainable(model), codec, folder, options, generation, model.config.encoder_layers, model.config.num_mel_bins
    )


def _adapted(model: Any, options: TuneOptions) -> Any:
    from peft import LoraConfig, get_peft_model

    ends = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    if unknown := sorted(set(options.lora_layers) - ends):
        raise UsageError(
            f"whisper.lora_layers has {', '.join(unknown)}, which Whisper has not",
            remedy=f"known are {', '.join(sorted(ends))}",
        )
    return get_peft_model(
        model,
        LoraConfig(
            r=options.lora, lora_alpha=options.lora_alpha or 2 * options.lora, lora_dropout=options.lora_dropout,
            target_modules=list(options.lora_layers), bias="none",
        ),
    )  # fmt: skip
