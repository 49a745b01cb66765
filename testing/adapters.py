"""Adapters for labelling tools as processes, and the encodings that such tools use."""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from maskwire.cli.free_ports import free_port

from testing.processes import wait_until
from testing.servers import Servers
from testing.warm import running_module


@contextlib.contextmanager
def adapter(stack: Servers, *arguments: str) -> Iterator[httpx.Client]:
    """Runs an adapter. Yields an HTTP client with its address.

    Args:
        stack: The servers behind it.
        arguments: The adapter's name and options, as `python -m maskwire_adapters` takes them.
    """
    with running_adapter(stack, *arguments) as (address, _), httpx.Client(base_url=address, timeout=60) as http:
        yield http


@contextlib.contextmanager
def running_adapter(stack: Servers, *arguments: str) -> Iterator[tuple[str, int]]:
    """Runs an adapter, as `adapter` does. Yields its URL and the id of its process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    servers = ["--encoder", stack.encoder, "--decoder", stack.decoder]
    words = (arguments[0], "--port", str(port), *servers, *arguments[1:])
    with running_module("maskwire_adapters", *words) as process:

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(address).status_code < 500
            return False

        wait_until(answers, process=process)
        yield address, process.pid


def encoded(path: Path) -> str:
    """Returns a file in base64."""
    return base64.b64encode(path.read_bytes()).decode()


def data_uri(path: Path) -> str:
    """Returns a JPEG file as a data URI."""
    return f"data:image/jpeg;base64,{encoded(path)}"


def unpacked(rle: list[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decodes Label Studio's `rle` to bytes, bit by bit, after the description of rle-pack."""
    bits = "".join(f"{byte:08b}" for byte in rle)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, width = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(width)] * count if repeated else [read(width) for _ in range(count)]
    assert len(bits) - place < 8
    return np.array(values, np.uint8)
