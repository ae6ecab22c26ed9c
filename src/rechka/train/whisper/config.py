"""A Whisper run as one TOML file: the settings of every fine-tuning, some with other defaults, and its own table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rechka.errors import UsageError
from rechka.features.whisper import WINDOW_S
from rechka.train.finetune.config import FinetuneConfig, _known, _table
from rechka.train.whisper.checkpoint import find_checkpoint, read_config

RATES = {384: 3.75e-5, 512: 2.5e-5, 768: 1.25e-5, 1024: 6.25e-6, 1280: 5e-6}
"""Width of a model -> learning rate of a full fine-tuning: about a fortieth of that of the pre-training."""
LORA_RATE = 5e-4
"""Between 1e-4 and 1e-3, which are in use for adapters."""
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "data": {"max_s": float(WINDOW_S)},
    "optim": {"epochs": 3.0, "batch_seconds": 240.0, "accumulate": 2, "weight_decay": 0.01, "layer_decay": 1.0,
              "decide": "wer", "blend": False},
    "mask": {"time_masks": 15, "time_ms": 100.0, "band_masks": 1, "bands": 8},
}  # fmt: skip
"""What Whisper needs otherwise than the models that hear every frame for itself. Masks: as transformers has them."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """The table ``[whisper]``.

    Attributes:
        language: code of the language that is spoken, as Whisper knows it.
        task: ``"transcribe"`` or ``"translate"``; texts are English for the latter.
        stamps: share of windows whose text has time stamps. At 0 the model forgets them, and with them sequential mode
            and the times of segments decay (transformers, issue 30148).
        previous: share of windows that have the text of the window before as their prompt.
        join: share of windows that are filled with several recordings, as those of long audio are.
        pause_s: silence between them, from and to.
        lora: rank of the adapters; 0 trains all weights.
        lora_alpha: what adapters are multiplied with, times their rank; 0 is twice the rank.
        lora_dropout: before adapters.
        lora_layers: ends of names of the linear layers that get adapters; ``k_proj``, ``out_proj``, ``fc1`` and ``fc2``
            may be added from about 20 hours on.
        dropout: of the model; 0.1 helps below about 10 hours.
        checkpointing: compute activations again in the backward pass: less memory, a third more time.
        max_loss: points of WER that conversion may cost on the first dev set; one word is always allowed.
    """

    language: str = "ru"
    task: str = "transcribe"
    stamps: float = 0.5
    previous: float = 0.0
    join: float = 0.8
    pause_s: tuple[float, float] = (0.1, 1.0)
    lora: int = 0
    lora_alpha: int = 0
    lora_dropout: float = 0.05
    lora_layers: tuple[str, ...] = ("q_proj", "v_proj")
    dropout: float = 0.0
    checkpointing: bool = False
    max_loss: float = 0.3


@dataclass(frozen=True, slots=True)
class WhisperConfig(FinetuneConfig):
    """Everything that decides a run.

    Of the shared settings, ``optim.head_rate`` is the factor of the decoder's rate, ``optim.layer_decay`` and
    ``freeze_layers`` are of the encoder, ``tokenizer`` is a ``tokenizer.json``, ``optim.batch_seconds`` counts 30
    seconds for every window, ``int8`` writes 8 bits instead of float16, and a rate that is not given depends on the
    size of the model.
    """

    whisper: TuneOptions = field(default_factory=TuneOptions)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str = "the configuration") -> WhisperConfig:
        """From plain values, as ``to_dict`` gives them.

        Raises:
            UsageError: a key or value that means nothing; ``where`` names the source.
        """
        values = dict(raw)
        _known(values, cls, where, "")
        own: TuneOptions = _table(TuneOptions, values.pop("whisper", {}), where, "whisper")  # type: ignore[type-var]
        for key, preset in DEFAULTS.items():
            given = values.get(key, {})
            values[key] = {**preset, **given} if isinstance(given, Mapping) else given
        if isinstance(values["optim"], dict) and "rate" not in values["optim"]:
            values["optim"]["rate"] = default_rate(str(values.get("model", "")), own.lora)
        base = FinetuneConfig.from_dict(values, where=where)
        config = cls(**{item.name: getattr(base, item.name) for item in fields(base)}, whisper=own)
        config.check(where)
        return config

    @property
    def batch(self) -> int:
        """Windows of a batch."""
        return int(self.optim.batch_seconds // WINDOW_S)

    def check(self, where: str = "the configuration") -> None:
        """Raise UsageError unless the run makes sense."""
        FinetuneConfig.check(self, where)
        own = self.whisper
        shares = (own.stamps, own.previous, own.join)
        rules = {
            f"data.max_s is at most {WINDOW_S}, the length of a window": self.data.max_s <= WINDOW_S,
            f"optim.batch_seconds is at least {WINDOW_S}: every window counts as long as that": self.batch >= 1,
            "optim.decide is wer: texts come from generation": self.optim.decide == "wer",
            "optim.blend is false: adapters have no way that is straight": not self.optim.blend,
            "whisper.task is transcribe or translate": own.task in ("transcribe", "translate"),
            "whisper.stamps, previous and join are shares": all(0 <= share <= 1 for share in shares),
            "whisper.pause_s goes from 0 or more to 5 seconds or less": 0 <= own.pause_s[0] <= own.pause_s[1] <= 5,
            "whisper.lora is a rank from 0 to 1024": 0 <= own.lora <= 1024,
            "whisper.lora_layers names layers if lora is above 0": own.lora == 0 or bool(own.lora_layers),
            "whisper.lora_dropout and dropout are in [0, 1)": 0 <= own.lora_dropout < 1 and 0 <= own.dropout < 1,
            "whisper.max_loss is 0 or more": own.max_loss >= 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise UsageError(f"{where}: a run must satisfy: {rule}", remedy="see docs/finetune_whisper.md")


def default_rate(model: str, lora: int) -> float:
    """The learning rate for a checkpoint.

    Source: Whisper's authors recommend about a fortieth of the rate of the pre-training, which falls with the size.
    """
    if lora:
        return LORA_RATE
    folder = find_checkpoint(model)
    width = read_config(folder).get("d_model") if folder else None
    nearest = min(RATES, key=lambda one: abs(one - width)) if isinstance(width, int) else 768
    return RATES[nearest]
