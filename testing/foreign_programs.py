"""Programs of others, each installed into a virtual environment that is kept between runs."""

import os
import subprocess
import sys
from pathlib import Path


def installed(requirement: str) -> Path:
    """Installs a program unless it is installed already. Returns the folder of its commands.

    Args:
        requirement: Name and exact version, as pip takes them: "name==1.2.3".
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = caches / "maskwire" / "compatibility" / requirement
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", requirement], check=True)
        done.touch()
    return folder / "bin"
