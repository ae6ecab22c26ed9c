"""Fine-tuning of Whisper: full or with LoRA, from a checkpoint of transformers to a folder that CTranslate2 runs."""

from rechka.train.whisper.checkpoint import find_checkpoint
from rechka.train.whisper.config import TuneOptions, WhisperConfig
from rechka.train.whisper.run import finetune_whisper

__all__ = ["TuneOptions", "WhisperConfig", "find_checkpoint", "finetune_whisper"]
