"""The page that a gateway serves: plain ES modules and a style sheet, used as they lie here."""

from pathlib import Path


def folder() -> Path:
    """The folder of index.html; all other files in it are assets."""
    return Path(__file__).parent
