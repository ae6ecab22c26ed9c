"""A small network that puts marks and capitals into bare words: texts, training, scores, export."""
