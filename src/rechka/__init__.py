"""rechka: Russian speech recognition, live and from files."""

__version__ = "0.1.0"
