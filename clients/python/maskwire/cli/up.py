"""The command `maskwire up`: starts and supervises a store and the servers on this machine."""

import contextlib
import errno
import functools
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from rich.console import Console

from maskwire import host_port
from maskwire.cli import local_servers
from maskwire.cli.free_ports import free_port, listen
from maskwire.cli.health import answers_http, health
from maskwire.cli.local_servers import RunningServers
from maskwire.cli.local_store import make_store, private_folder, store_url
from maskwire.cli.output import refuse_server_command
from maskwire.cli.supervisor import Child, Supervisor
from maskwire.cli.up_options import UpOptions
from maskwire.errors import MaskwireError

_FIRST_PORT = 50051
_TOLD = ("encoder", "decoder", "tracker", "gateway", "redis_url")


def start_servers(options: UpOptions) -> None:
    """Starts encoders, decoders, trackers, a gateway and a store, and supervises them until SIGINT or SIGTERM."""
    console, models = Console(stderr=True, highlight=False), options.model or ["demo"]
    for package, extra in (("maskwire_encoder", "torch"), ("maskwire_decoder", "onnxruntime")):
        if importlib.util.find_spec(package) is None or importlib.util.find_spec(extra) is None:
            refuse_server_command()
    fetching = importlib.import_module("maskwire_core.models.fetching")  # by name: the client does not depend on it
    models_folder = Path(os.environ.get("MASKWIRE_MODELS") or "~/.cache/maskwire/models").expanduser()
    missing = []
    if options.config is None:  # a model that is given may have any name
        missing = fetching.missing([name.strip() for text in models for name in text.split(",")], models_folder)
    listening = _listening_host(options.host)
    devices = encoder_devices(options.device)
    decoder_port = options.decoder_port
    if decoder_port is None:
        decoder_port = (options.encoder_port or _FIRST_PORT) + len(devices)
    tracker_port = options.tracker_port
    if tracker_port is None:
        tracker_port = decoder_port + options.decoders if decoder_port else 0
    gateways = 1 if options.gateway and _has_gateway() else 0
    encoder_ports, decoder_ports, tracker_ports, gateway_ports = _choose_ports(
        listening,
        {
            "--encoder-port": (options.encoder_port, len(devices)),
            "--decoder-port": (decoder_port, options.decoders),
            "--tracker-port": (tracker_port, options.trackers),
            "--gateway-port": (options.gateway_port, gateways),
        },
    )
    host = host_port.reachable(listening)
    if options.checkpoint is None:
        fetching.fetch_all(missing, models_folder, mirror=options.mirror, offline=options.offline)
    with private_folder() as folder, Supervisor(console.print) as supervisor:
        with console.status("starting the store") as progress:
            redis_url = options.redis_url
            if redis_url is None:
                redis_url = store_url(folder)
                supervisor.start(make_store(options.redis_memory_mb, folder))
            environment = {
                "MASKWIRE_REDIS_URL": redis_url,
                "MASKWIRE_HOST": listening,
                "MASKWIRE_LOG_LEVEL": "INFO" if options.verbose else os.environ.get("MASKWIRE_LOG_LEVEL", "WARNING"),
            }
            if options.cold_tier is not None:  # as seen from here; servers run elsewhere
                is_address = "://" in options.cold_tier
                path = options.cold_tier if is_address else str(Path(options.cold_tier).expanduser().absolute())
                environment["MASKWIRE_COLD_TIER"] = path
            names = ", ".join(models)
            progress.update(
                f"starting {len(devices)} encoder(s) with {names} (the first start takes longer), "
                f"{options.decoders} decoder(s), {options.trackers} tracker(s)"
            )
            children = []
            for device, port in zip(devices, encoder_ports, strict=True):
                command = [sys.executable, "-m", "maskwire_encoder", "--port", str(port), "--model", names]
                command += ["--device", device, "--store-codec", options.store_codec]
                command += ["--checkpoint", str(options.checkpoint)] if options.checkpoint is not None else []
                command += ["--config", options.config] if options.config is not None else []
                label = "encoder" if len(devices) == 1 else f"encoder at {port} on {device}"
                children.append(_server(label, command, host_port.join(host, port), environment))
            for port in decoder_ports:
                command = [sys.executable, "-m", "maskwire_decoder", "--port", str(port)]
                children.append(_server(f"decoder at {port}", command, host_port.join(host, port), environment))
            encoders, decoders, trackers = (
                ",".join(host_port.join(host, port) for port in ports)
                for ports in (encoder_ports, decoder_ports, tracker_ports)
            )
            for port in tracker_ports:
                command = [sys.executable, "-m", "maskwire_tracker", "--port", str(port), "--encoder", encoders]
                children.append(_server(f"tracker at {port}", command, host_port.join(host, port), environment))
            supervisor.start(*children)
            page = None
            for port in gateway_ports if decoder_ports else []:
                tls = bool(os.environ.get("MASKWIRE_TLS_CERT"))
                page = f"{'https' if tls else 'http'}://{host_port.join(host, port)}/"
                command = [sys.executable, "-m", "maskwire_gateway", "--port", str(port)]
                command += ["--encoder", encoders, "--decoder", decoders]
                command += ["--tracker", trackers] if trackers else []
                answers = functools.partial(answers_http, host, port, tls=tls)
                supervisor.start(Child("gateway", command, answers, environment))
        running = RunningServers(encoders, decoders, page, redis_url, trackers)
        others = local_servers.find_running()
        with local_servers.registered(running):
            if options.as_json:
                pids = {child.name: child.process.pid for child in supervisor.children if child.process is not None}
                addresses = {name: getattr(running, name) for name in _TOLD}
                print(json.dumps({**addresses, "model": names, "pids": pids}), flush=True)
            else:
                _print_addresses(console, running, names, others)
            supervisor.supervise()
        console.print("stopping: accepted work is finished first")
    console.print("stopped")


def _print_addresses(console: Console, running: RunningServers, model: str, others: Sequence[RunningServers]) -> None:
    console.print("[bold]maskwire is up[/bold]")
    console.print(f"  encoder  {running.encoder}  (model {model})")
    console.print(f"  decoder  {running.decoder or 'none'}")
    if running.tracker:
        console.print(f"  tracker  {running.tracker}")
    if running.gateway is not None:
        console.print(f"  page     {running.gateway}  (and the HTTP interface)")
    console.print(f"  store    {_without_password(running.redis_url)}")
    if model == "demo":
        console.print("  The demo model makes rough masks. For SAM 2's own models: maskwire models list")
    for other in others:
        console.print(
            f"Another maskwire is up, with its encoder at {other.encoder}; commands will use the one just started."
        )
    if (running.encoder, running.decoder) != ("127.0.0.1:50051", "127.0.0.1:50052"):
        console.print("The maskwire command finds these servers. For clients in Python and elsewhere:")
        exports = f"MASKWIRE_ENCODER={running.encoder} MASKWIRE_DECODER={running.decoder}"
        console.print(f"  export {exports}", soft_wrap=True)
    console.print("Try:  maskwire segment photo.jpg --point 500,375 -o mask.png      Stop: Ctrl-C")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _server(name: str, command: list[str], address: str, environment: dict[str, str]) -> Child:
    return Child(name, command, lambda: health(address) == "SERVING", environment)


def _has_gateway() -> bool:
    """Returns whether the optional gateway is installed."""
    return all(
        importlib.util.find_spec(package) is not None for package in ("maskwire_gateway", "starlette", "uvicorn")
    )


def encoder_devices(device: str) -> list[str]:
    """Returns the devices that `--device` names. CUDA devices are listed by a child process, which imports torch."""
    if device != "all":
        return [name.strip() for name in device.split(",")]
    code = "from maskwire_encoder.backends.device import cuda_devices; print(*cuda_devices())"
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if not found:
        raise MaskwireError("--device all: torch sees no CUDA device; use --device cpu", "NO_DEVICE", "--device")
    return found


def _choose_ports(host: str, wanted: Mapping[str, tuple[int, int]]) -> list[list[int]]:
    """Chooses the ports of servers, and checks that nobody listens there.

    Args:
        host: What they listen on.
        wanted: By the option of each kind of server, its first port, or 0 for any that are free, and their number.

    Returns:
        The ports of each kind: consecutive ones, or free ones, which are no other server's.

    Raises:
        MaskwireError: CANNOT_LISTEN.
    """
    chosen = {option: [first + index for index in range(count) if first] for option, (first, count) in wanted.items()}
    for option, ports in chosen.items():
        for port in ports:
            with _reported(host, port, option):
                listen(host, port).close()
    taken = {port for ports in chosen.values() for port in ports}
    for option, (first, count) in wanted.items():
        for _ in range(0 if first else count):
            with _reported(host, 0, option):
                chosen[option].append(free_port(host, taken))
            taken.add(chosen[option][-1])
    return list(chosen.values())


def _listening_host(text: str) -> str:
    try:
        return host_port.bare_host(text)
    except ValueError as error:
        raise MaskwireError(str(error), "BAD_ADDRESS", "--host") from error


@contextlib.contextmanager
def _reported(host: str, port: int, option: str) -> Iterator[None]:
    """Turns a failure to listen on a port of a host into an error that names the option, and who uses the port."""
    try:
        yield
    except OSError as error:
        remedy = f"choose another port with {option} (0 takes a free one)"
        if option == "--gateway-port":
            remedy += ", or leave the gateway out with --no-gateway"
        if error.errno != errno.EADDRINUSE:
            remedy += ", or another address with --host"
        ups = local_servers.find_running()
        users = [up.pid for up in ups if f":{port}" in f"{up.encoder},{up.decoder},{up.tracker},{up.gateway}"]
        by = f" by the 'maskwire up' with process id {users[0]}" if users else ""
        what = f"port {port} is in use{by}" if error.errno == errno.EADDRINUSE else f"{error.strerror}"
        raise MaskwireError(
            f"cannot listen on {host_port.join(host, port)}: {what}; {remedy}", "CANNOT_LISTEN", option
        ) from error
