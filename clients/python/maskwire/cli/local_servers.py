"""Registry of running `maskwire up` processes, by which the other commands find the servers.

Each `up` writes a file into the user's cache folder and holds a lock on it while it runs. A file that is not locked was
left by an `up` that was killed; it is ignored and removed.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class RunningServers:
    """The servers of a running `maskwire up`."""

    encoder: str  # addresses of the encoders, separated by commas
    decoder: str  # addresses of the decoders, separated by commas; empty if there are none
    gateway: str | None  # URL of the web page; None without a gateway
    redis_url: str  # URL of the store
    tracker: str = ""  # addresses of the trackers, separated by commas; empty if there are none
    pid: int = field(default_factory=os.getpid)  # process id of the `up`
    host: str = field(default_factory=socket.gethostname)  # name of the machine on which they run

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables that make commands use these servers."""
        found = {
            "MASKWIRE_ENCODER": self.encoder,
            "MASKWIRE_DECODER": self.decoder,
            "MASKWIRE_TRACKER": self.tracker,
            "MASKWIRE_REDIS_URL": self.redis_url,
        }
        return {name: value for name, value in found.items() if value}


@contextlib.contextmanager
def registered(running: RunningServers) -> Iterator[None]:
    """Registers this process's servers until the end of the block; does nothing if no file can be written."""
    path = _folder() / f"{running.host}-{running.pid}.json"
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        # The URL of the store may contain a password.
        file = os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w")
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


def find_running() -> list[RunningServers]:
    """Returns the servers of this user on this machine; those that became ready last come first."""
    found: list[tuple[float, RunningServers]] = []
    for path in _folder().glob("*.json"):
        with contextlib.suppress(OSError, TypeError, ValueError), path.open("r+") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                continue  # in a folder that several users write to; its servers would get this user's images
            is_left_over = _is_unlocked(file)
            running = RunningServers(**json.load(file))
            if running.host != socket.gethostname():
                continue
            if is_left_over:
                path.unlink(missing_ok=True)
            else:
                found.append((path.stat().st_mtime, running))
    return [running for _, running in sorted(found, key=lambda pair: pair[0], reverse=True)]


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "maskwire" / "up"


def _is_unlocked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True
