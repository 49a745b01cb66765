"""Files of the repository that tests and benchmarks read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""
COFFEE = ROOT / "examples" / "coffee.jpg"
"""A photograph of 600x400 pixels."""
