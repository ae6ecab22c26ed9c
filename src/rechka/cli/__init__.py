"""The command line: one file per verb; ``main.run`` is the entry."""
