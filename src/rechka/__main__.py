"""``python -m rechka``, the same as ``rechka``."""

from rechka.cli.main import run

if __name__ == "__main__":
    run()
