"""Ways to cut a sequence in pieces, for tests that say "any chunking gives the same"."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def chunkings(total: int, *, largest: int | None = None) -> SearchStrategy[list[int]]:
    """Hypothesis strategy: sizes >= 0 that add up to ``total``, from crumbs to a single piece.

    Args:
        total: samples or frames to cut.
        largest: upper limit of one piece.
    """
    from hypothesis import strategies as st  # a test tool; the package itself runs without it

    top = max(1, min(total, largest or total))

    def fill(sizes: list[int]) -> list[int]:
        pieces: list[int] = []
        left = total
        while left > 0:
            size = min(sizes[len(pieces) % len(sizes)], left)
            pieces.append(size)
            left -= size
        return pieces

    size = st.one_of(st.integers(0, top), st.integers(0, min(top, 200)), st.just(top))
    return (
        st.lists(size, min_size=1, max_size=12).filter(lambda sizes: sum(sizes) * 50 >= total and any(sizes)).map(fill)
    )
