"""An engine around a recogniser, for tests of whatever stands on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rechka.engine import Engine
    from rechka.recognizers import Asr


@asynccontextmanager
async def running_engine(asr: Asr | None = None, **options: Any) -> AsyncIterator[Engine]:
    """A started engine, by default around the toy model; ``options`` as in ``EngineOptions``."""
    from rechka.engine import Engine, EngineOptions
    from rechka.testing.toy import toy_asr

    engine = Engine(asr or toy_asr(), EngineOptions(**{"workers": 2, "max_wait_ms": 1.0, **options}))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
