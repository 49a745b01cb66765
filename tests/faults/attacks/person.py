"""The tenant who works, as a process: python -m tests.faults.attacks.person TARGET, which `lab.Lab` starts."""

import hashlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import httpx
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, encoder_pb2_grpc, types_pb2

from testing.wire import frames, picture

from .kinds import Target, said

_DEADLINE_S = 60


def main() -> None:
    target = Target(**json.loads(sys.argv[1]))
    noted = _Noted()
    right = hashlib.sha256()

    decoder = decoder_pb2_grpc.DecoderServiceStub(_channel(target))
    encoder = encoder_pb2_grpc.EncoderServiceStub(grpc.insecure_channel(target.encoder))
    prompt = types_pb2.Prompt(points=[types_pb2.Point(x_px=30, y_px=20)])
    request = pb.SegmentRequest(image_id="small", prompts=[prompt])
    web = httpx.Client(base_url=f"http://{target.gateway}", headers=dict(target.metadata), timeout=_DEADLINE_S)
    body = {"prompts": [{"points": [{"x_px": 30, "y_px": 20}]}]}
    right_counts = decoder.Segment(request, metadata=target.metadata).results[0].masks[0].rle.counts
    right.update(right_counts.encode())

    def click() -> None:
        answer = decoder.Segment(request, timeout=_DEADLINE_S, metadata=target.metadata)
        noted.wrong += answer.results[0].masks[0].rle.counts != right_counts

    def click_on_new_connection() -> None:
        with _channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = decoder_pb2_grpc.DecoderServiceStub(channel)
            stub.Segment(request, timeout=_DEADLINE_S, metadata=target.metadata)

    def click_over_http() -> None:
        answer = web.post("/v1/images/small/segment", json=body)
        if not answer.is_success:
            raise _Refused(f"{answer.status_code} {answer.json().get('reason')}")
        noted.wrong += answer.json()["results"][0]["masks"][0]["rle"]["counts"] != right_counts

    def embed() -> None:
        new = picture(int.from_bytes(os.urandom(4), "big"))
        encoder.EncodeImage(frames(new, 1 << 20), timeout=_DEADLINE_S, metadata=target.metadata)

    def work(name: str, call: Callable[[], None], times: list[float], pause_s: float) -> None:
        while True:
            started, failed = time.perf_counter(), ""
            with noted.changed:
                noted.begun[name] += 1
            try:
                call()
            except (grpc.RpcError, httpx.HTTPError, _Refused) as error:
                failed = f"{name}: {_told(error)}"
            with noted.changed:
                times.append(time.perf_counter() - started)
                noted.failed.update([failed] if failed else [])
                noted.ended[name] += 1
                noted.changed.notify_all()
            time.sleep(pause_s)

    calls = [
        ("click", click, noted.clicks, 0.02),
        ("click over HTTP", click_over_http, noted.others, 0.1),
        ("new image", embed, noted.others, 0.3),
    ]
    if target.authority:
        calls.append(("click on a new connection", click_on_new_connection, noted.others, 0.3))
    for name, call, times, pause_s in calls:
        threading.Thread(target=work, args=(name, call, times, pause_s), daemon=True).start()
    for _ in sys.stdin:
        with noted.changed:
            noted.wait()
            answer = {
                "clicks": noted.clicks[:],
                "others": noted.others[:],
                "failed": noted.failed,
                "wrong": noted.wrong,
            }
            print(json.dumps(answer), flush=True)
            noted.clear()


def _channel(target: Target, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
    """A connection to the decoder."""
    if not target.authority:
        return grpc.insecure_channel(target.decoder, options)
    return grpc.secure_channel(target.decoder, grpc.ssl_channel_credentials(target.authority.encode()), options)


class _Refused(Exception):
    pass


class _Noted:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.begun, self.ended = Counter[str](), Counter[str]()  # calls of each kind, ever
        self.clicks: list[float] = []
        self.others: list[float] = []
        self.failed = Counter[str]()
        self.wrong = 0

    def wait(self) -> None:
        """Waits, with `changed` held, until the calls that are under way have ended, and there was a click."""
        begun = self.begun.copy()
        self.changed.wait_for(lambda: bool(self.clicks) and all(self.ended[kind] >= begun[kind] for kind in begun))

    def clear(self) -> None:
        self.clicks.clear()
        self.others.clear()
        self.failed.clear()
        self.wrong = 0


def _told(error: Any) -> str:
    if isinstance(error, grpc.RpcError):
        return f"{error.code().name} {error.details()[:80]}"  # type: ignore[attr-defined]
    return str(error) if isinstance(error, _Refused) else said(error)


if __name__ == "__main__":
    main()
