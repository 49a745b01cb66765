"""Rows 27 to 30: no device memory, wrong weights, no disk, a wrong clock."""

import hashlib
import random
import resource
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from maskwire import Client, ImageNotFound, ServerUnavailable
from maskwire.cli.local_store import store_program
from maskwire_core.models.registry import PUBLISHED

from testing.servers import store_server
from testing.warm import run_module
from testing.wire import frames, picture

from . import processes
from .results import Observation
from .world import World, counts


@pytest.mark.fault(27, variant="out of memory")
def test_the_device_has_too_little_memory(world: World, note: Observation) -> None:
    note.injected = "torch.OutOfMemoryError for every batch of more than one image; sixteen images at once"
    server = processes.encoder(world.folder, world.url, MASKWIRE_MAX_BATCH="8").start().wait()
    with world.client(encoder=server.address) as client:
        try:
            with world.switched("hold", server), world.switched("memory", server), Client(server.address) as busy:
                first = threading.Thread(target=lambda: busy.embed(picture(2700)))
                first.start()
                world.busy(server)
                outcomes: list[object] = []
                crowd = threading.Thread(
                    target=lambda: outcomes.extend(
                        outcome
                        for _, outcome in client.embed_many(
                            (picture(2701 + index) for index in range(16)), errors="yield"
                        )
                    )
                )
                crowd.start()
                (processes.switches(server) / "hold").unlink()
                crowd.join(60)
                first.join(60)
            assert [getattr(outcome, "width", outcome) for outcome in outcomes] == [60] * 16
            batches = server.log.read_text().count("no memory for a batch")
            assert batches > 0
            world.check(client, 2701)
        finally:
            server.end()
    note.observed = f"{batches} batches were split; all sixteen images answered"


@pytest.mark.slow
@pytest.mark.fault(27, variant="device lost")
def test_the_device_is_lost(world: World, note: Observation) -> None:
    note.injected = "a sticky device error: the model raises, and the device cannot add any more"
    server = processes.encoder(world.folder, world.url).start().wait()
    white = np.full((20, 20, 3), 255, np.uint8)
    with Client(server.address, retry_s=0) as client, pytest.raises(ServerUnavailable) as caught:
        client.embed(white)
    assert caught.value.reason == "DEVICE_LOST"
    note.fault()
    assert server.process is not None
    assert server.process.wait(30) == 1
    took_s = note.recovered()
    note.observed = f"DEVICE_LOST with RetryInfo; exit code 1 after {took_s:.1f} s, for a supervisor to start it anew"


@pytest.mark.fault(27, variant="self-test")
def test_a_self_test_notices_an_idle_device_that_is_lost(world: World, note: Observation) -> None:
    note.injected = "the same while nobody asks: the picture that the encoder tries from time to time fails"
    server = processes.encoder(world.folder, world.url, MASKWIRE_SELF_TEST_S="0.5").start().wait()
    (processes.switches(server) / "lost").touch()
    note.fault()
    assert server.process is not None
    assert server.process.wait(30) == 1
    took_s = note.recovered()
    assert "the self-test failed" in server.log.read_text()
    note.observed = f"noticed without a caller; exit code 1 after {took_s:.1f} s (self-test every 0.5 s)"


@pytest.mark.fault(28)
def test_weights_are_not_those(note: Observation, tmp_path: Path) -> None:
    note.injected = "a file of random bytes of the right name in the models folder"
    known = PUBLISHED["sam2.1_hiera_tiny"]
    wrong = tmp_path / known.url.rsplit("/", 1)[1]
    wrong.write_bytes(random.Random(29).randbytes(9000))
    if known.size_bytes is not None:
        with wrong.open("ab") as file:
            file.truncate(known.size_bytes)
    digest = hashlib.sha256(wrong.read_bytes()).hexdigest()
    with store_server(store_program()) as url:
        options = ("--model", "sam2.1_hiera_tiny", "--models", str(tmp_path), "--redis-url", url)
        ended = run_module("maskwire_encoder", *options)
    assert ended.returncode == 1
    for told in (wrong.name, known.sha256, digest):
        assert told in ended.stderr
    note.observed = "exit code 1; the message has the file and both digests"


@pytest.mark.fault(29)
def test_the_disk_is_full(world: World, note: Observation) -> None:
    note.injected = "RLIMIT_FSIZE of an encoder and a decoder set to 0 while they run: no file can grow, logs included"
    servers = world.encoders[0], world.decoders[0]
    limits = [resource.prlimit(server.pid, resource.RLIMIT_FSIZE) for server in servers]
    sizes = [server.log.stat().st_size for server in servers]
    try:
        for server, (_, hard) in zip(servers, limits, strict=True):
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, hard))
        with Client(servers[0].address, servers[1].address) as client:
            for number in (2900, 2901, 2902):
                world.check(client, number)
            assert not client.embed(picture(2903)).cached
            with pytest.raises(ImageNotFound):
                client.segment(image_id="nothing")
            world.raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # which is logged
            world.check(client, 2904)
        assert [server.log.stat().st_size for server in servers] == sizes
    finally:
        for server, limit in zip(servers, limits, strict=True):
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limit)
    note.observed = "encoded and answered with the right masks; what would have been logged is lost"


@pytest.mark.fault(30)
@pytest.mark.parametrize("hours", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_the_clock_is_wrong(world: World, note: Observation, hours: int) -> None:
    note.injected = f"time.time() of Maskwire's code in an encoder and a decoder jumps by {hours:+} h while they run"
    flag = world.folder / f"clock{hours}"
    jump = (
        "import importlib, os, runpy, sys, time, types\n"
        "class Clock(types.ModuleType):\n"
        "    def __getattr__(self, name): return getattr(time, name)\n"
        f"    def time(self): return time.time() + {hours} * 3600 * os.path.exists({str(flag)!r})\n"
        "program = sys.argv[1]\n"
        "sys.argv = sys.argv[1:]\n"
        "importlib.import_module('maskwire_decoder.service' if 'decoder' in program else 'maskwire_encoder.__main__')\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.startswith('maskwire_') and getattr(module, 'time', None) is time: module.time = Clock('time')\n"
        "runpy.run_module(program, run_name='__main__', alter_sys=True)\n"
    )
    encoder, decoder = processes.encoder(world.folder, world.url), processes.decoder(world.folder, world.url)
    for server in (encoder, decoder):
        words = [word for word in server.command[1:] if word != "-m"]
        server.command = [sys.executable, "-c", jump, *words]
        server.start()
    try:
        encoder.wait()
        decoder.wait()
        with Client(encoder.address, decoder.address) as client:
            world.check(client, 3000)
            with client.session(picture(3001)) as session:
                before = counts(session.click(30, 20))
                flag.touch()
                session.click(10, 10)
                undone = session.undo()
                assert undone is not None
                assert counts(undone) == before
            for number in (3000, 3001, 3002):
                world.check(client, number)
            saved = client.segment(picture(3000), points=[(30, 20)], save_logits=True)
            refined = client.segment(picture(3000), points=[(30, 20), (10, 10)], load_logits=True)
            assert counts(saved) == world.right(3000)
            assert refined.rle
        with world.stub(world.encoders[0]) as stub:  # one whose clock is right agrees about what is stored
            assert stub.EncodeImage(frames(picture(3002))).cached
    finally:
        for server in (encoder, decoder):
            if server.lives:
                server.end()
    note.observed = "masks, undo and saved logits as before; another encoder found what it stored"
