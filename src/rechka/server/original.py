"""Environment variables of the Russian server that rechka can replace (Sanich137/ASR_FastAPI_WS_RU_sherpa-onnx).

Only read when asked for, with ``rechka serve --original-env``: names like HOST and PORT mean something else elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_PORT = 49153
IGNORED = (
    *("HF_HOME", "FILENAME", "FILEMODE", "LOG_BACKUP_COUNT", "LOGGING_FORMAT", "IS_PROD", "BASE_SAMPLE_RATE"),
    *("VAD_SENSE", "VAD_SENSITIVITY", "VAD_WITH_GPU", "MAX_OVERLAP_DURATION", "RECOGNITION_ATTEMPTS", "MAKE_MONO"),
    *("BETWEEN_WORDS_PERCENTILE", "CAN_PUNCTUATE", "PUNCTUATE_WITH_GPU", "CAN_DIAR", "DIAR_MODEL_NAME"),
    *("DIAR_WITH_GPU", "DIAR_GPU_BATCH_SIZE", "CPU_WORKERS", "USE_SPEED_SPEECH_CORRECTION"),
    *("DO_SPEED_SPEECH_CORRECTION", "SPEED_SPEECH_CORRECTION_MULTIPLIER", "DO_LOCAL_FILE_RECOGNITIONS"),
    *("DELETE_LOCAL_FILE_AFTR_ASR", "HUMAN_FORMAT_MD_FILE"),
)
"""Variables that mean nothing here: models bring their own rate, phrases need no overlap, there is no separate VAD."""
MODELS = {"vosk5": "vosk-5", "vosk": "vosk-5", "gigaam": "gigaam-v3-ctc"}
"""Its model names that are written otherwise here; all others are taken as they are."""
LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "WARN": "warning", "ERROR": "error"}


def settings_of(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Settings from its variables, and the names of those that are set and mean nothing here."""
    found: dict[str, Any] = {"port": DEFAULT_PORT}
    if host := environ.get("HOST"):
        found["host"] = host
    if port := environ.get("PORT"):
        found["port"] = port
    if name := environ.get("MODEL_NAME") or environ.get("model_name"):
        found["model"] = MODELS.get(name.lower(), name.lower())
    if (threads := environ.get("NUM_THREADS", "0")) != "0":
        found["workers"] = threads
    if provider := environ.get("PROVIDER"):
        found["device"] = "cuda" if provider.upper() in ("CUDA", "TENSORRT") else "cpu"
    if level := environ.get("LOGGING_LEVEL"):
        found["log_level"] = LEVELS.get(level.upper(), "info")
    return found, [name for name in IGNORED if name in environ]
