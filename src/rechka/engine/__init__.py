"""Many streams, one model: sessions, the batcher that gathers them, limits, metrics. Nothing of sockets."""

from rechka.engine.engine import Engine
from rechka.engine.files import transcribe
from rechka.engine.intake import Flushed, SessionEvent
from rechka.engine.metrics import Registry
from rechka.engine.options import EngineOptions, SessionOptions
from rechka.engine.session import Meter, Session

__all__ = [
    "Engine",
    "EngineOptions",
    "Flushed",
    "Meter",
    "Registry",
    "Session",
    "SessionEvent",
    "SessionOptions",
    "transcribe",
]
