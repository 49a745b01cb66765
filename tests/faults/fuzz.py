"""Sends damaged and random input to every parser: python -m tests.faults.fuzz --inputs 100000 --seed 1

Image files, stored embeddings and tracks, exported decoders and trackers, data sets, and answers to clients go to what
reads them; protobuf messages, HTTP requests and frames of a WebSocket to running servers. Each must result in a value
or in the error that is documented for it, else the exit code is 1; so it is if memory grows beyond a bound at any time.
Prints a report.
"""

import asyncio
import io
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
from maskwire.v1.tracker_pb2_grpc import TrackerServiceStub
from maskwire_core.errors import CorruptValue, InvalidArgument
from maskwire_core.models.decoder_bundle import GRAPHS, DecoderBundle, DecoderConfig
from maskwire_core.models.graph_archive import Bundle, OnnxGraph
from maskwire_core.models.tracker_bundle import GRAPHS as TRACKER_GRAPHS
from maskwire_core.models.tracker_bundle import TrackerBundle, TrackerConfig
from maskwire_core.storage.codecs import CODECS
from maskwire_core.storage.embedding import Header, pack, unpack
from maskwire_encoder.image_input.reading import read_image
from maskwire_tracker import stored_track
from maskwire_tracker.remembered import Points, Remembered, TrackedObject
from PIL import Image

from testing.servers import running_gateway
from testing.tracking import running_tracker, upload
from testing.wire import picture

from . import command_line, fuzz_adapters, fuzz_answers, fuzz_datasets, fuzz_http, fuzz_messages
from .fuzz_messages import Outcome, send_messages
from .growth import Growth
from .mutations import mutated
from .world import World, counts

MAX_PIXELS = 100_000
PARSERS_MIB = 64
"""By how much this process may grow at any time while it parses, of which a picture of `MAX_PIXELS` takes 0.4."""
SERVERS_MIB = 192
"""By how much a server with its processes may grow at any time: threads, what it caches, and requests in progress."""


def image_files(pick: random.Random) -> list[bytes]:
    """Returns valid files of every format, including rarer kinds."""
    pixels = np.random.default_rng(pick.getrandbits(32)).integers(0, 256, (37, 53, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    rgba = Image.fromarray(np.dstack([pixels, pixels[:, :, :1]]))
    exif = Image.Exif()
    exif[0x112] = 6
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (rgb, "JPEG", {}),
        (rgb, "JPEG", {"exif": exif, "progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb.convert("L"), "JPEG", {"quality": 30}),
        (rgb, "PNG", {"exif": exif}),
        (rgba, "PNG", {}),
        (rgb.convert("P"), "PNG", {"transparency": 3}),
        (Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257), "PNG", {}),
        (rgb, "PNG", {"save_all": True, "append_images": [rgb.rotate(90, expand=False)]}),
        (rgba, "WEBP", {}),
        (rgb, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {"save_all": True, "append_images": [rgb], "duration": 10}),
        (rgb, "BMP", {}),
        (rgb.convert("P"), "BMP", {}),
        (rgb.convert("1"), "BMP", {}),
        *((rgb, "TIFF", {"compression": how}) for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        (rgb.convert("CMYK"), "TIFF", {}),
        (rgb, "GIF", {}),
    ]
    files = []
    for image, kind, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def read_file(data: bytes) -> Outcome:
    try:
        pixels = read_image(data, MAX_PIXELS).pixels
    except InvalidArgument as error:
        return error.reason
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.dtype == np.uint8
    assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    return "pixels"


def embeddings(pick: random.Random) -> list[bytes]:
    values = np.random.default_rng(pick.getrandbits(32))
    tensors = {
        name: values.standard_normal(shape, np.float32)
        for name, shape in (("image_embed", (64, 256)), ("high_res_1", (64, 4, 64)), ("high_res_0", (64, 16, 32)))
    }
    planes = {name: values.integers(-9, 9, (5, 8, 8)).astype(np.int16) for name in tensors}
    return [
        pack(Header("default", "a" * 64, "m", "f", "d", 10, 20, codec, 0), planes if codec == "klt" else tensors)
        for codec in CODECS
    ]


def read_embedding(value: bytes, originals: list[bytes]) -> Outcome:
    try:
        embedding = unpack(value)
    except CorruptValue:
        return "CorruptValue"
    # The checksums let nothing through that is not what was stored; padding after the header is no part of it.
    assert any(embedding.header == unpack(original).header for original in originals)
    return "embedding"


def bundles() -> list[tuple[type[Bundle[Any]], bytes, str]]:
    """Returns an exported decoder and an exported tracker: their types, bytes and digests."""
    decoder = DecoderConfig("demo", "f", 512, 128, True, 0.05, 0.98)
    tracker = TrackerConfig(decoder, 7, 64, 16, True, False, True, True, 0, 1, True, (0.5,) * 4)
    weights = {"weight": np.ones((4, 4), np.float32)}
    made: list[Bundle[Any]] = [
        DecoderBundle(decoder, _graphs(GRAPHS), weights),
        TrackerBundle(tracker, _graphs(TRACKER_GRAPHS), weights),
    ]
    return [(type(each), each.packed, each.digest) for each in made]


def _graphs(names: Iterable[str]) -> dict[str, OnnxGraph]:
    return {name: OnnxGraph(name.encode() * 20, ("weight",)) for name in names}


def read_bundle(kind: type[Bundle[Any]], value: bytes, digest: str) -> Outcome:
    try:
        kind.unpack(value, digest)
    except CorruptValue:
        return "CorruptValue"
    return "bundle"


def track(pick: random.Random) -> tuple[bytes, dict[bytes, bytes]]:
    """Returns a stored track: what names its records, and these."""
    values = np.random.default_rng(pick.getrandbits(32))
    floats = values.standard_normal((3, 4), np.float32)
    seen = Remembered(floats[0], 0.5, floats, floats.view(np.uint32).astype(np.uint16))
    points = Points(floats[:, :2], np.array([1, 0, 1]))
    objects = {
        "cup": TrackedObject({0: points}, {0: seen}, {1: seen, 2: Remembered(floats[1], 1.5, None)}, {}, {}, {1: False})
    }
    meta = stored_track.pack_meta(stored_track.Description("demo", "f", "d", 20, 10), objects)
    return meta, {name: stored_track.pack_record(each) for name, each in stored_track.records(objects).items()}


def read_track(pick: random.Random, meta: bytes, records: dict[bytes, bytes]) -> Outcome:
    """Reads a track of which one value is damaged."""
    values = {b"": meta, **records}
    name = pick.choice(list(values))
    values[name] = mutated(pick, values[name])
    meta = values.pop(b"")
    try:
        stored_track.read_description(meta)
        assert set(stored_track.record_names(meta)) == set(records)
        stored_track.unpack_objects(meta, values)
    except CorruptValue:
        return "CorruptValue"
    return "track"


def run(inputs: int, seed: int) -> tuple[list[str], list[str]]:
    """Returns the lines of the report, and descriptions of what went wrong."""
    pick = random.Random(seed)
    files, values, exported, stored = image_files(pick), embeddings(pick), bundles(), track(pick)
    answers = fuzz_answers.answers(pick)

    def damaged_bundle() -> Outcome:
        kind, packed, digest = pick.choice(exported)
        return read_bundle(kind, mutated(pick, packed), digest)

    parsers: dict[str, tuple[float, Callable[[], Outcome]]] = {
        "image files": (0.35, lambda: read_file(mutated(pick, pick.choice(files)))),
        "embeddings": (0.2, lambda: read_embedding(mutated(pick, pick.choice(values)), values)),
        "exported decoders and trackers": (0.05, damaged_bundle),
        "tracks": (0.05, lambda: read_track(pick, *stored)),
        "answers to a client": (0.05, lambda: fuzz_answers.read_damaged(pick, answers)),
        "data sets": (0.05, lambda: data_sets.read_damaged()),
    }
    told: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    started = time.monotonic()
    growth = Growth()
    with fuzz_datasets.files(pick) as data_sets:
        for name, (share, parse) in parsers.items():
            outcomes = told.setdefault(name, Counter())
            with growth.during(name, PARSERS_MIB, python=os.getpid()):
                for index in range(int(inputs * share)):
                    try:
                        outcomes[parse()] += 1
                    except Exception as error:  # whatever it is, it was not meant
                        outcomes[type(error).__name__] += 1
                        wrong.append(f"{name} {index} (seed {seed}): {type(error).__name__}: {error}"[:300])

    def left() -> int:
        return inputs - sum(outcomes.total() for outcomes in told.values())

    share = (
        left() // 7
    )  # of each way over HTTP, and of a tracker's messages; the others are an encoder's and a decoder's
    with tempfile.TemporaryDirectory() as folder, World(Path(folder), count=1, keep_sources_s=600) as world:
        world.calm.embed(picture(400), image_id="fuzz")
        with world.client() as client:
            kept = client.embed(picture(400), image_id="fuzz", keep_source=True)
            large = client.embed(picture(402, 600, 400), image_id="fuzz-large", keep_source=True)
        right = world.right(400)
        encoder, decoder = world.encoders[0], world.decoders[0]
        servers = SimpleNamespace(encoder=encoder.address, decoder=decoder.address)
        with (
            running_tracker(world.url, encoder.address) as (tracker, followed_by),
            running_gateway(servers, "--timeout-s", "2", "--tracker", tracker) as (address, gateway),
            fuzz_adapters.running_adapters(servers) as adapters,
            grpc.insecure_channel(tracker) as channel,
        ):
            upload(TrackerServiceStub(channel), "fuzz", [picture(400), picture(401)], width_px=60, height_px=40)
            pids = {
                "encoder": encoder.pid,
                "decoder": decoder.pid,
                "gateway": gateway,
                "tracker": followed_by.pid,
                **{name: pid for name, (_, pid) in adapters.items()},
            }
            tools = {name: url for name, (url, _) in adapters.items()}
            ways: dict[str, Callable[[], fuzz_http.Told]] = {
                "HTTP by the schema": lambda: fuzz_http.by_schema(address, share, seed),
                "HTTP requests, damaged": lambda: asyncio.run(
                    fuzz_http.send_requests(address, pick, share, fuzz_http.to_gateway(large.content_key))
                ),
                "HTTP requests to adapters, damaged": lambda: asyncio.run(
                    fuzz_adapters.send(tools, kept.model, pick, share)
                ),
                "WebSocket": lambda: asyncio.run(fuzz_http.send_frames(address, pick, share)),
                "messages to a tracker": lambda: asyncio.run(
                    send_messages(fuzz_messages.tracker(tracker), pick, share)
                ),
                "messages to an encoder and a decoder": lambda: asyncio.run(
                    send_messages(
                        fuzz_messages.encoder_and_decoder(encoder.address, decoder.address, kept.content_key),
                        pick,
                        left(),
                    )
                ),
            }
            for name, send in ways.items():
                with growth.during(name, SERVERS_MIB, **pids):
                    told[name], more = send()
                wrong += more
        with world.client() as client:
            client.embed(picture(400), image_id="fuzz")  # some of the input was right, and deleted it
            if counts(client.segment(picture(400), points=[(30, 20)])) != right:
                wrong.append("the mask after all of it is another one")
        if not all(server.ready() for server in world.servers):
            wrong.append("a server does not serve any more")
        for server in world.servers:
            if b"unexpected error" in (text := server.log.read_bytes()):
                wrong.append(f"{server.log.name}: {text[text.index(b'unexpected error') :][:1500].decode()}")
    wrong += growth.wrong
    took_s = time.monotonic() - started
    total = sum(outcomes.total() for outcomes in told.values())
    lines = [f"{total} inputs, seed {seed}, {took_s:.0f} s: {len(wrong)} went wrong"]
    for name, outcomes in told.items():
        counted = ", ".join(f"{way} {count}" for way, count in outcomes.most_common())
        lines.append(f"{name} {outcomes.total()}: {counted}; memory at most {growth.seen[name]} MiB")
    return lines, wrong


def _reported(inputs: int, seed: int) -> tuple[list[str], list[str], bool]:
    lines, wrong = run(inputs, seed)
    return lines, wrong[-20:], not wrong


if __name__ == "__main__":
    command_line.report(__doc__, "--inputs", 100_000, _reported)
