"""Foreign programs, each installed into an environment of its own that is kept between runs."""

import os
import subprocess
import sys
from pathlib import Path


def installed(requirement: str) -> Path:
    """Installs a program, unless that was done before. Returns the folder of its commands.

    Args:
        requirement: As pip takes it, with its exact version.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = caches / "maskwire" / "compatibility" / requirement
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", requirement], check=True)
        done.touch()
    return folder / "bin"
