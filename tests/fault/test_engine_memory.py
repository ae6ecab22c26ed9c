"""The engine's memory does not grow with what goes through it. benchmarks/engine_memory.py does a million chunks."""

import pytest

from rechka.testing.soak import STATM, soak_engine

pytest.importorskip("starlette", reason="the server extra is not installed")
from rechka.server.load.watch import slope

CHUNKS = 12_000


@pytest.mark.skipif(not STATM.exists(), reason="the system tells no process's memory")
def test_memory_is_flat_over_many_chunks():
    found = soak_engine(CHUNKS, session_chunks=150)
    late = found[len(found) // 3 :]
    assert found[-1][0] >= CHUNKS
    grown = slope([done for done, _ in late], [size for _, size in late])
    # A chunk is 4800 bytes of audio: if it is kept anywhere, that shows; the allocator's warming up is some hundred.
    assert grown < 600, f"{grown:.0f} bytes per chunk"
