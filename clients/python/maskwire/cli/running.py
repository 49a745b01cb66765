"""Where `maskwire up` runs, for the other commands.

Each `up` keeps a file of its own in a folder of the user's cache, and holds a lock on it as long as it lives. A file
that nobody has locked is left over from an `up` that was killed; it is ignored and removed. Of several that run, the
one that was ready last is used.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Running:
    """A `maskwire up` that is running.

    Attributes:
        pid: Its process id.
        encoder: Addresses of its encoders, separated by commas.
        decoder: Addresses of its decoders, likewise; empty if it has none.
        gateway: URL of its page; None without a gateway.
        redis_url: Its store.
        host: Name of the machine that it runs on.
    """

    pid: int
    encoder: str
    decoder: str
    gateway: str | None
    redis_url: str
    host: str

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables that lead commands to it."""
        found = {
            "MASKWIRE_ENCODER": self.encoder,
            "MASKWIRE_DECODER": self.decoder,
            "MASKWIRE_REDIS_URL": self.redis_url,
        }
        return {name: value for name, value in found.items() if value}


@contextlib.contextmanager
def announced(encoder: str, decoder: str, gateway: str | None, redis_url: str) -> Iterator[None]:
    """Leaves word of this process's servers until the end of the block. Where no file can be written, none is left."""
    running = Running(os.getpid(), encoder, decoder, gateway, redis_url, socket.gethostname())
    path = _folder() / f"{running.host}-{running.pid}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)  # the store's URL may have a password
        file = path.open("w")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump(asdict(running), file)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def find() -> list[Running]:
    """The `maskwire up`s of this user that run on this machine, the one that was ready last first."""
    found: list[tuple[float, Running]] = []
    for path in _folder().glob("*.json"):
        with contextlib.suppress(OSError, TypeError, ValueError), path.open("r+") as file:
            if _is_left_over(file):
                running = Running(**json.load(file))
                if running.host == socket.gethostname():
                    path.unlink(missing_ok=True)
                continue
            running = Running(**json.load(file))
            if running.host == socket.gethostname():
                found.append((path.stat().st_mtime, running))
    return [running for _, running in sorted(found, key=lambda each: each[0], reverse=True)]


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "maskwire" / "up"


def _is_left_over(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True
