"""A Docker engine of its own in a network namespace, for a machine (or container) that has none running."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_START_S = 60

PROMETHEUS = "prom/prometheus:v3.5.0"
"""Tag of the image that docker-compose.yml names by its digest, too."""


def call(*command: str, quiet: bool = False, check: bool = True, **environment: str) -> str:
    """Runs a command and returns what it printed; what failed is shown."""
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if run.returncode and check:
        raise SystemExit(f"error: {' '.join(command)} gave {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-4000:]}")
    return run.stdout.strip()


@dataclass(frozen=True)
class Engine:
    """Where an engine is.

    Attributes:
        host: As DOCKER_HOST has it; empty for the machine's own.
        inside: What a command begins with so that it sees the engine's network.
    """

    host: str = ""
    inside: Sequence[str] = ()

    def docker(self, *command: str, check: bool = True) -> str:
        """Gives a command of docker's."""
        return call("docker", *command, check=check, **self.environment)

    def compose(self, *command: str, check: bool = True, **environment: str) -> str:
        """Gives a command of docker compose's, on this repository's file."""
        return call(*_compose(), *command, check=check, **self.environment, **environment)

    @property
    def environment(self) -> dict[str, str]:
        """What docker's programs need to find it."""
        # Images that were loaded from a file have no digest.
        return {"DOCKER_HOST": self.host, "PROMETHEUS_IMAGE": PROMETHEUS} if self.host else {}


def _compose() -> list[str]:
    return ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]


def of_the_machine() -> Engine | None:
    """The engine that answers already."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        return Engine()
    return None


def require() -> None:
    """Ends the program unless a Docker engine answers or one of its own can be started; says what is missing."""
    if of_the_machine() is not None:
        return
    needed = {
        "dockerd": "apt-get install docker.io (Debian, Ubuntu), or https://docs.docker.com/engine/install/",
        "docker": "comes with dockerd",
        "buildah": "apt-get install buildah, or dnf install buildah",
        "ip": "apt-get install iproute2",
        "nsenter": "apt-get install util-linux",
    }
    lacking = [f"  {tool}: {how}" for tool, how in needed.items() if shutil.which(tool) is None]
    if os.geteuid() != 0:
        lacking.append("  root: run it with sudo")
    if lacking:
        print(
            "error: no Docker engine answers, and to start one of its own this needs:",
            *lacking,
            sep="\n",
            file=sys.stderr,
        )
        print("Start a Docker engine, or install these. --files validates files only, without any.", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def private(folder: Path, images: Sequence[str]) -> Iterator[Engine]:
    """Starts an engine with images that buildah has made. Root only.

    Args:
        folder: For its data; several GB.
        images: Their names, as "docker.io/maskwire/decoder".
    """
    name = f"maskwire-{os.getpid()}"
    socket = folder / "docker.sock"
    call("ip", "netns", "add", name)
    server = None
    try:
        call("ip", "netns", "exec", name, "ip", "link", "set", "lo", "up")
        command = ["nsenter", f"--net=/run/netns/{name}", "dockerd", "--data-root", str(folder / "data")]
        command += ["--exec-root", str(folder / "exec"), "-H", f"unix://{socket}", "--pidfile", str(folder / "pid")]
        with (folder / "dockerd.log").open("wb") as log:
            server = subprocess.Popen([*command, "--oom-score-adjust", "0"], stdout=log, stderr=log)
        engine = Engine(f"unix://{socket}", ("ip", "netns", "exec", name))
        deadline = time.monotonic() + _START_S
        while "Server Version" not in engine.docker("info", check=False):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"error: dockerd does not start:\n{(folder / 'dockerd.log').read_text()[-2000:]}")
            time.sleep(0.5)
        for image in images:
            archive = folder / "image.tar"
            archive.unlink(missing_ok=True)
            call("buildah", "push", image, f"docker-archive:{archive}:{image}")
            engine.docker("load", "--input", str(archive))
            archive.unlink()
        yield engine
    finally:
        if server is not None:
            server.terminate()
            server.wait(60)
        call("ip", "netns", "delete", name, check=False)


if __name__ == "__main__":
    require()
