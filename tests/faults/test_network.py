"""Rows 21 to 23: callers that are gone without a word, read slowly, or sit behind a bad link."""

import threading
import time

import grpc
import pytest
from maskwire import Client, MaskwireError
from maskwire.v1 import decoder_pb2 as pb
from maskwire.v1 import decoder_pb2_grpc, types_pb2

from testing.processes import wait_until
from testing.time_bounds import assert_within
from testing.wire import picture

from .proxy import Proxy
from .results import Observation
from .world import World


def opening(world: World, number: int) -> pb.SegmentStreamRequest:
    stored = world.calm.embed(picture(number))
    set_image = pb.SetImage(image_id="x", namespace="calm", content_key=stored.content_key)
    return pb.SegmentStreamRequest(request_id="0", set_image=set_image)


@pytest.mark.fault(21)
@pytest.mark.parametrize("side", ["client gone", "server gone"])
@pytest.mark.time_bound
def test_the_other_side_is_gone_without_a_word(world: World, note: Observation, side: str) -> None:
    server = world.decoders[0]
    note.injected = "nothing carried any more, nothing closed, on the way of an open session"
    with (
        Proxy(server.port).running() as proxy,
        Client(world.encoders[0].address, proxy.address, retry_s=0) as client,
        client.session(picture(210)) as session,
    ):
        session.click(30, 20)
        proxy.silent = True
        note.fault()
        if side == "client gone":  # the server closes its side; the proxy keeps the client's
            wait_until(lambda: proxy.ended >= 1, 20)
        else:
            with pytest.raises(MaskwireError):
                session.click(10, 10)
        took_s = note.recovered()
        proxy.silent = False
        proxy.cut()
    assert_within(took_s, 6)
    note.observed = {
        "client gone": f"the server closed the connection after {took_s:.1f} s",
        "server gone": f"the client gave the click up after {took_s:.1f} s (with retries it asks another decoder)",
    }[side]


@pytest.mark.slow
@pytest.mark.fault(22)
def test_a_reader_is_slow(world: World, note: Observation) -> None:
    note.injected = "600 prompts with packed bits of a 3,000 x 2,000 image (0.7 MB each) on a stream that reads nothing"
    server = world.decoders[0]
    stored = world.calm.embed(picture(220, 3000, 2000))
    set_image = pb.SetImage(image_id="x", namespace="calm", content_key=stored.content_key)
    prompt = types_pb2.Prompt(points=[types_pb2.Point(x_px=1500, y_px=1000)])
    output = types_pb2.OutputOptions(formats=[types_pb2.MASK_FORMAT_PACKED_BITS])
    segment = pb.StreamPrompts(prompts=[prompt], output=output)
    go = threading.Event()

    def requests():  # type: ignore[no-untyped-def]
        yield pb.SegmentStreamRequest(request_id="0", set_image=set_image)
        for index in range(600):
            yield pb.SegmentStreamRequest(request_id=str(index + 1), segment=segment)
        go.wait()

    options = [("grpc.max_receive_message_length", 64 << 20)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        call = decoder_pb2_grpc.DecoderServiceStub(channel).SegmentStream(requests())
        assert next(call).HasField("image_ready")
        before, most = server.rss, 0
        quiet = time.monotonic() + 6
        while time.monotonic() < quiet:
            most = max(most, server.rss)
            time.sleep(0.05)
        # The others are served meanwhile, and this one gets everything when it reads.
        with Client(world.encoders[0].address, server.address) as client:
            world.check(client, 221)
        answers = [next(call) for _ in range(600)]
        go.set()
        call.cancel()
    assert [answer.request_id for answer in answers] == [str(index + 1) for index in range(600)]
    assert all(len(answer.result.results[0].masks[0].packed_bits) == 750_000 for answer in answers)
    grown = (most - before) >> 20
    assert grown < 100  # of 430 MB of answers
    note.observed = f"the decoder's memory grew by {grown} MiB; 430 MiB of answers came in order when they were read"


@pytest.mark.fault(23)
@pytest.mark.parametrize("link", ["+200 ms", "1 Mbit/s", "both"])
@pytest.mark.time_bound
def test_the_link_is_bad(world: World, note: Observation, link: str) -> None:
    note.injected = f"{link} between client and servers"
    with (
        Proxy(world.encoders[0].port).running() as to_encoder,
        Proxy(world.decoders[0].port).running() as to_decoder,
        Client(to_encoder.address, to_decoder.address) as client,
        Client(to_encoder.address, to_decoder.address, timeout_s=1) as hasty,
    ):
        encoded_before, stored_before = _encoded(world), _embeddings(world)
        for proxy in (to_encoder, to_decoder):
            proxy.latency_s = 0.1 if link != "1 Mbit/s" else 0.0
            proxy.bytes_per_s = 125_000 if link != "+200 ms" else 0
        started = time.monotonic()
        for number in (230, 231, 232):
            world.check(client, number)
        with client.session(picture(230)) as session:
            for _ in range(5):
                session.click(30, 20)
        calm_s = time.monotonic() - started
        large = picture(2300, 400, 300)  # 0.36 MB: three seconds at 1 Mbit/s
        for proxy in (to_encoder, to_decoder):
            proxy.bytes_per_s = 125_000
        if link == "both":
            client.embed(large)
            large = picture(2301, 400, 300)
        asked = time.monotonic()
        with pytest.raises(MaskwireError):
            hasty.embed(large)
        failed_s = time.monotonic() - asked
        connections = to_encoder.accepted + to_decoder.accepted
        encodes = _encoded(world) - encoded_before
        stored = _embeddings(world) - stored_before
    assert connections <= 6  # one each for two clients, and what keepalive gave up
    assert encodes == len(stored)  # each image once, whatever was tried again
    assert_within(failed_s, 3)
    note.observed = (
        f"three masks and a session right in {calm_s:.1f} s; an upload with a deadline of 1 s failed after "
        f"{failed_s:.2f} s; {connections} connections, {encodes} encodes of {len(stored)} images"
    )


def _encoded(world: World) -> int:
    return sum(world.load(encoder).encoded for encoder in world.encoders)


def _embeddings(world: World) -> set[bytes]:
    return set(world.raw.keys("maskwire:embedding:*"))
