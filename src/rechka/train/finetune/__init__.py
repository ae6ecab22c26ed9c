"""Fine-tuning of the T-one and GigaAM families: CTC and RNN-T, from a checkpoint and manifests to a model's folder."""

from rechka.train.finetune.config import DataOptions, DevSet, FinetuneConfig, MaskOptions, Optimisation
from rechka.train.finetune.report import Progress
from rechka.train.finetune.run import finetune
from rechka.train.wave import WaveOptions

__all__ = [
    "DataOptions", "DevSet", "FinetuneConfig", "MaskOptions", "Optimisation", "Progress", "WaveOptions", "finetune",
]  # fmt: skip
