"""Searches over frames: CTC greedy and beam, language models, hotwords."""
