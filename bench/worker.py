"""Measures the start-up time and the memory of a decoder process."""

import contextlib
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from maskwire.cli.local_store import store_program
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2

from bench.subject import fill
from testing.servers import running_server, store_server

_CLICKS = 20


@dataclass
class Worker:
    """Figures of one process; an image at 1024 px takes 22 MiB of its memory, and the image's decoder 21 MiB."""

    seconds_until_serving: float
    idle_mib: float
    one_image_mib: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"A decoder worker serves after {self.seconds_until_serving:.1f} s and takes {self.idle_mib:.0f} MiB of "
            f"memory, with one image and its decoder {self.one_image_mib:.0f} MiB (the aim is 300 at most)."
        )


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def measure() -> Worker:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(store_server(store_program()))
        fill(url, "fp16")
        started = time.perf_counter()
        address, pid = stack.enter_context(running_server("maskwire_decoder", url, cold=True))
        seconds = time.perf_counter() - started
        idle = resident_mib(pid)
        stub = decoder_pb2_grpc.DecoderServiceStub(stack.enter_context(grpc.insecure_channel(address)))
        for number in range(_CLICKS):
            point = types_pb2.Point(x_px=500 + number, y_px=400)
            stub.Segment(pb.SegmentRequest(image_id="photo", prompts=[types_pb2.Prompt(points=[point])]))
        return Worker(seconds, idle, resident_mib(pid))
