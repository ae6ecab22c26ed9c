"""Models as cards: where they are, how they come, how they are put together."""
