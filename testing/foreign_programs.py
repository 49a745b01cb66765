"""Programs of others, each installed into a folder of its own that is kept between runs."""

import os
import subprocess
import sys
from pathlib import Path


def installed(requirement: str, *beside: str) -> Path:
    """Installs a program into a virtual environment unless it is installed already. Returns the folder of its commands.

    Args:
        requirement: Name and exact version, as pip takes them: "name==1.2.3".
        beside: Packages that it uses if they are there, in the same form.
    """
    folder = _folder(requirement)
    done = folder / "installed"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", requirement, *beside], check=True)
        done.touch()
    return folder / "bin"


def installed_by_npm(package: str) -> Path:
    """Installs a package of npm unless it is installed already. Returns the folder of its commands.

    Args:
        package: Name and exact version, as npm takes them: "@scope/name@1.2.3".
    """
    folder = _folder(package.replace("/", "+"))
    done = folder / "installed"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", package], check=True)
        done.touch()
    return folder / "node_modules" / ".bin"


def _folder(name: str) -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return caches / "maskwire" / "compatibility" / name
