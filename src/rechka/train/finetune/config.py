"""A fine-tuning run as one TOML file: everything that decides it, with units in the names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from rechka.errors import UsageError
from rechka.hub import toml
from rechka.train.wave import WaveOptions

Table = TypeVar("Table", bound="DataOptions | DevSet | Optimisation | MaskOptions | WaveOptions")


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What is trained on.

    Attributes:
        train: sources as ``rechka.train.data.find_shards`` takes them.
        replay: general recordings against forgetting, and
        replay_share: their share of the audio seen. The note on fine-tuning names 0.1 to 0.3.
        min_s, max_s: recordings outside these lengths are left out; T-one's and GigaAM's own scripts end at 20 s.
        max_bad: share of unusable recordings (unreadable, or with letters that the model does not write) above which
            the run is given up.
        shuffle: rows in the mixing buffer, which holds them undecoded.
        window_s: decoded audio from which batches of about equal length are cut.
        threads: that decode and change recordings.
    """

    train: tuple[str, ...] = ()
    replay: tuple[str, ...] = ()
    replay_share: float = 0.2
    min_s: float = 0.1
    max_s: float = 20.0
    max_bad: float = 0.05
    shuffle: int = 1000
    window_s: float = 1200.0
    threads: int = 2


@dataclass(frozen=True, slots=True)
class DevSet:
    """Recordings that the model is scored on: a name, sources, and how many of them at most."""

    name: str
    sources: tuple[str, ...]
    items: int = 500


@dataclass(frozen=True, slots=True)
class Usual:
    """What a family of models takes where nothing else is asked for; see ``Optimisation``."""

    epochs: float = 5.0
    rate: float = 5e-5
    batch_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Optimisation:
    """How weights move. The rate rises over a share ``warmup`` of the run, then falls to a hundredth along a cosine.

    Attributes:
        steps: of the optimiser; 0 counts ``epochs`` instead.
        epochs: passes over ``train``; costs one look at every recording's length before the run; 0 is the usual number.
        rate: of the head and the last layer; 0 is the usual one. T-one's own notebook has 5e-5, GigaAM's script 2e-5 to
            8e-5; the embedded model, a twentieth of their size, takes 1e-3 (docs/finetune.md).
        layer_decay: factor of the rate from each layer to the one below it.
        head_rate: factor of the head's rate.
        batch_seconds: audio of one batch, padding included; 0 is what is usual.
        accumulate: batches in one step of the optimiser.
        weight_decay, clip: of AdamW; norm to which gradients are clipped.
        ema: memory of the averaged weights, which are scored and exported; 0 takes the last weights themselves.
        freeze: patterns of parameters that never move, such as ``encoder.pre_encode.*``.
        freeze_layers: so many of the lowest encoder layers, and what comes before them, stay as they are
        freeze_until: up to this share of the run; 1 is all of it.
        freeze_norms: BatchNorm keeps its statistics, as less than about 20 hours of data cannot estimate better ones.
        evals: looks at the dev sets, evenly over the run.
        patience: looks without a better word error rate after which the run ends; 0 never ends it.
        min_gain: what counts as better, in points.
        decide: which error rate of the first dev set tells the best weights and ends the run: ``"wer"``, ``"cer"``, or
            ``"auto"``: letters where the model goes with a language model, which mends words, else words.
        blend: after the run, weights on the way from the old to the new ones are scored too, a quarter, half and three
            quarters of it (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"): the less data, the more of
            what training adds is chance, and the way back is better than fewer steps.
    """

    steps: int = 0
    epochs: float = 0.0
    rate: float = 0.0
    warmup: float = 0.1
    layer_decay: float = 0.9
    head_rate: float = 1.0
    batch_seconds: float = 0.0
    accumulate: int = 1
    weight_decay: float = 1e-3
    clip: float = 1.0
    ema: float = 0.999
    freeze: tuple[str, ...] = ()
    freeze_layers: int = 0
    freeze_until: float = 1.0
    freeze_norms: bool = True
    evals: int = 10
    patience: int = 4
    min_gain: float = 0.1
    decide: str = "auto"
    blend: bool = True


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """SpecAugment (Park et al. 2019) on log-mel features of 10 ms; masked cells get the recording's mean.

    Attributes:
        time_masks, time_ms, time_share: number, greatest width, and greatest share of a recording that one may take.
        band_masks, bands: number and greatest width, of 64 mel bands; models with fewer get narrower ones.
    """

    time_masks: int = 10
    time_ms: float = 250.0
    time_share: float = 0.05
    band_masks: int = 2
    bands: int = 15


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """Everything that decides a run.

    Attributes:
        model: checkpoint, folder, or name of a model on disk that has its weights.
        tokenizer: SentencePiece model, where it does not lie beside the checkpoint.
        name: of the model that comes out; "" makes one of the output folder's name.
        seed: of order, augmentation and dropout.
        device: ``"auto"`` (CUDA where there is one), ``"cpu"`` or ``"cuda"``.
        precision: ``"auto"`` (bf16 on CUDA where it is supported), ``"fp32"`` or ``"bf16"``.
        save_every_s: seconds between checkpoints, besides those at looks at the dev sets.
        int8: also write the model in 8 bits, and let its card take that.
    """

    model: str
    dev: tuple[DevSet, ...]
    data: DataOptions
    tokenizer: str = ""
    name: str = ""
    seed: int = 1
    device: str = "auto"
    precision: str = "auto"
    save_every_s: float = 300.0
    int8: bool = False
    optim: Optimisation = field(default_factory=Optimisation)
    mask: MaskOptions = field(default_factory=MaskOptions)
    wave: WaveOptions = field(default_factory=WaveOptions)

    @classmethod
    def load(cls, path: Path) -> FinetuneConfig:
        """Read a TOML file; relative paths in it are relative to its folder.

        Raises:
            UsageError: the file is missing, no TOML, or has a key or value that means nothing.
        """
        try:
            raw = toml.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the configuration {path}: {error}", remedy="see docs/finetune.md") from None
        config = cls.from_dict(raw, where=str(path))
        return config.placed(path.absolute().parent)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str = "the configuration") -> FinetuneConfig:
        """From plain values, as ``to_dict`` gives them.

        Raises:
            UsageError: a key or value that means nothing; ``where`` names the source.
        """
        values = dict(raw)
        _known(values, cls, where, "")
        sections: dict[str, Any] = {}
        for key, kind in (("data", DataOptions), ("optim", Optimisation), ("mask", MaskOptions), ("wave", WaveOptions)):
            sections[key] = _table(kind, values.pop(key, {}), where, key)
        dev = values.pop("dev", [])
        if not isinstance(dev, (list, tuple)):
            raise UsageError(f"{where}: dev must be tables [[dev]], each with name and sources")
        entries = tuple(_table(DevSet, entry, where, "dev") for entry in dev)
        plain = _typed(cls, {"model": "", **values}, where, "")
        config = cls(**plain, dev=entries, **sections)
        config.check(where)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Plain values for TOML."""
        return asdict(self)

    def to_toml(self) -> str:
        """The run as a TOML file that ``load`` reads back as an equal configuration."""
        return toml.dumps(self.to_dict())

    def placed(self, folder: Path) -> FinetuneConfig:
        """The same with relative paths of files that exist made absolute from ``folder``."""

        def place(name: str) -> str:
            if not name or "://" in name or Path(name).is_absolute():
                return name
            here = folder / name
            return str(here) if here.exists() or any(mark in name for mark in "*?{") else name

        def places(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(map(place, names))

        data = replace(self.data, train=places(self.data.train), replay=places(self.data.replay))
        return replace(
            self, model=place(self.model), tokenizer=place(self.tokenizer), data=data,
            dev=tuple(replace(entry, sources=places(entry.sources)) for entry in self.dev),
            wave=replace(self.wave, noise_files=places(self.wave.noise_files)),
        )  # fmt: skip

    def settled(self, usual: Usual, *, lm: bool) -> FinetuneConfig:
        """The same with every setting that was left to the family said.

        Args:
            usual: of the family.
            lm: whether the model goes with a language model.
        """
        optim = self.optim
        return replace(
            self,
            optim=replace(
                optim,
                epochs=optim.epochs or usual.epochs,
                rate=optim.rate or usual.rate,
                batch_seconds=optim.batch_seconds or max(usual.batch_seconds, self.data.max_s),
                decide={"auto": "cer" if lm else "wer"}.get(optim.decide, optim.decide),
            ),
        )

    def check(self, where: str = "the configuration") -> None:
        """Raise UsageError unless the run makes sense."""
        data, optim = self.data, self.optim
        names = [entry.name for entry in self.dev]
        rules = {
            "model names what to start from": bool(self.model),
            "data.train names at least one source": bool(data.train),
            "every dev set has a name of its own and sources": len(set(names)) == len(names)
            and all(entry.name and entry.sources and entry.items > 0 for entry in self.dev),
            "there is a dev set to stop by, or optim.patience is 0": bool(self.dev) or optim.patience == 0,
            "device is auto, cpu or cuda": self.device in ("auto", "cpu", "cuda"),
            "precision is auto, fp32 or bf16": self.precision in ("auto", "fp32", "bf16"),
            "optim.steps, epochs, rate and batch_seconds are at least 0": min(
                optim.steps, optim.epochs, optim.rate, optim.batch_seconds
            )
            >= 0,
            "optim.clip is above 0": optim.clip > 0,
            "optim.decide is auto, wer or cer": optim.decide in ("auto", "wer", "cer"),
            "optim.accumulate is at least 1": optim.accumulate >= 1,
            "optim.evals is at least 1": optim.evals >= 1,
            "optim.ema is in [0, 1)": 0 <= optim.ema < 1,
            "optim.layer_decay is in (0, 1]": 0 < optim.layer_decay <= 1,
            "optim.warmup and freeze_until are shares": 0 <= optim.warmup <= 1 and 0 <= optim.freeze_until <= 1,
            "data.replay_share is in [0, 1)": 0 <= data.replay_share < 1,
            "0 < data.min_s < data.max_s": 0 < data.min_s < data.max_s,
            "data.threads is at least 1, data.shuffle at least 0": data.threads >= 1 and data.shuffle >= 0,
            "a batch holds the longest recording: optim.batch_seconds is at least data.max_s": not 0
            < optim.batch_seconds
            < data.max_s,
        }
        for rule, holds in rules.items():
            if not holds:
                raise UsageError(f"{where}: a run must satisfy: {rule}", remedy="see docs/finetune.md")


def _known(values: Mapping[str, Any], kind: type[Any], where: str, section: str) -> None:
    names = [item.name for item in fields(kind)]
    for key in values:
        if key not in names:
            here = f"[{section}] " if section else ""
            raise UsageError(f"{where}: {here}has no key {key!r}", remedy=f"known are {', '.join(names)}")


def _table(kind: type[Table], values: Any, where: str, section: str) -> Table:
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: {section} must be a table, got {values!r:.60}")
    _known(values, kind, where, section)
    try:
        return kind(**_typed(kind, values, where, section))
    except TypeError as error:
        raise UsageError(f"{where}: [{section}] {error}", remedy="a dev set needs name and sources") from None


def _typed(kind: type[Any], values: Mapping[str, Any], where: str, section: str) -> dict[str, Any]:
    """The values as the annotations of ``kind`` say: numbers, texts, flags, and tuples of texts or numbers."""
    wanted = {item.name: str(item.type) for item in fields(kind)}
    found = {}
    for key, value in values.items():
        good, made = _fits(wanted[key], value)
        if not good:
            name = f"{section}.{key}" if section else key
            raise UsageError(f"{where}: {name} must be {_SAY.get(wanted[key], wanted[key])}, got {value!r:.60}")
        found[key] = made
    return found


_SAY = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false",
    "tuple[str, ...]": "a list of texts", "tuple[float, float]": "a list of two numbers",
}  # fmt: skip


def _fits(wanted: str, value: Any) -> tuple[bool, Any]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted == "tuple[str, ...]":
        value = (value,) if isinstance(value, str) else value
        good = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
        return good, tuple(value) if good else value
    if wanted == "tuple[float, float]":
        good = isinstance(value, (list, tuple)) and len(value) == 2 and all(_fits("float", v)[0] for v in value)
        return good, tuple(map(float, value)) if good else value
    if wanted == "float":
        return number, float(value) if number else value
    kinds = {"str": str, "int": int, "bool": bool}
    return isinstance(value, kinds[wanted]) and (wanted == "bool" or not isinstance(value, bool)), value
