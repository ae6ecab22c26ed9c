"""A training run as one TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rechka.errors import DataError
from rechka.train.augment import AugmentOptions

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef,import-not-found,unused-ignore]


@dataclass(frozen=True, slots=True)
class DataSet:
    """A source of recordings: manifests, the folder of its feature store, its share of the audio seen."""

    name: str
    manifests: tuple[str, ...]
    weight: float = 1.0
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How weights move.

    The learning rate rises over ``warmup`` steps, stays at ``peak``, and falls linearly to zero from ``decay_from`` to
    ``steps`` (warm-up, stable, decay: the end may be chosen while the run is under way).
    """

    steps: int = 20000
    warmup: int = 400
    decay_from: int = 15000
    peak: float = 1.2e-3
    batch_seconds: float = 30.0
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    middle_ctc: float = 0.3
    short_first_steps: int = 300
    silence: float = 0.02


@dataclass(frozen=True, slots=True)
class Regularisation:
    """Means against learning recordings by heart; none of them changes the exported model.

    Attributes:
        dropout: of every residual branch.
        depth: stochastic depth, the last block's chance to be skipped by a recording.
        left: shortest left context in 40 ms frames (even) that a step may draw; 0: always the model's.
        chunks: chunks in 40 ms frames (even) that a step may draw; none: always the model's.
    """

    dropout: float = 0.0
    depth: float = 0.0
    left: int = 0
    chunks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides a run.

    ``init`` starts from the weights of a checkpoint; they grow where ``model`` has a wider feed-forward. On a GPU
    (``device = "cuda"``) there is one worker, arithmetic is bfloat16, and ``loaders`` processes make the batches;
    such a run can be resumed but not repeated to the last bit.
    """

    data: tuple[DataSet, ...]
    dev: tuple[DataSet, ...]
    model: dict[str, Any] = field(default_factory=dict)
    optim: Optimisation = field(default_factory=Optimisation)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    regular: Regularisation = field(default_factory=Regularisation)
    seed: int = 1
    workers: int = 2
    eval_every: int = 500
    save_every: int = 250
    dev_items: int = 80
    init: str = ""
    device: str = "cpu"
    loaders: int = 0

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a TOML file.

        Raises:
            DataError: the file is missing, no TOML, or has a key that means nothing.
        """
        try:
            raw = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read the training configuration {path}: {error}") from error
        try:
            for key in ("data", "dev"):
                raw[key] = tuple(
                    DataSet(**{**entry, "manifests": tuple(entry["manifests"])}) for entry in raw.get(key, [])
                )
            raw["optim"] = Optimisation(**raw.get("optim", {}))
            raw["augment"] = AugmentOptions(**raw.get("augment", {}))
            regular = raw.get("regular", {})
            raw["regular"] = Regularisation(**{**regular, "chunks": tuple(regular.get("chunks", ()))})
            return cls(**raw)
        except (TypeError, KeyError) as error:
            known = ", ".join(item.name for item in fields(cls))
            raise DataError(f"{path}: {error}", remedy=f"top-level keys are {known}") from error
