"""Image files while they arrive: where they are kept, what they cost, and when they are given up."""

import asyncio
import hashlib
import os
import time
from collections.abc import Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from maskwire_core import call_context
from maskwire_core.config import EncoderSettings
from maskwire_core.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from maskwire_core.tenancy.tenant import EVERYBODY, Caller
from maskwire_core.tenancy.tokens import Token
from maskwire_encoder.receiving import LEAST_BYTES_PER_S, Receiving
from maskwire_encoder.spool import Spool

MIB = 1 << 20
DATA = np.random.default_rng(1).bytes(3 * MIB + 17)
PAUSE_S = 10.0


def run(work: Coroutine[Any, Any, None], caller: Caller = EVERYBODY) -> None:
    async def call() -> None:
        call_context.begin("").caller = caller
        await work

    asyncio.run(call())


def spool(folder: Path, **settings: Any) -> Spool:
    return Spool(EncoderSettings(spool=folder, **settings))


def receiving(into: Spool, size: int) -> Receiving:
    return Receiving(SimpleNamespace(size_bytes=size), into, PAUSE_S)  # type: ignore[arg-type]


@pytest.mark.parametrize("above", [0, MIB, 8 * MIB])
@pytest.mark.parametrize("chunk", [1000, 65_536, 2 * MIB])
def test_what_came_is_what_is_read(tmp_path: Path, above: int, chunk: int) -> None:
    async def scenario() -> None:
        upload = receiving(spool(tmp_path, spool_above_bytes=above), len(DATA))
        for start in range(0, len(DATA), chunk):
            await upload.add(DATA[start : start + chunk])
        assert upload.missing == 0
        assert upload.file is not None
        assert upload.file.read() == upload.file.read() == DATA
        assert upload.file.sha256() == hashlib.sha256(DATA).digest()
        assert os.listdir(tmp_path) == []  # it has no name
        upload.close()

    run(scenario())


def test_more_than_was_announced_is_refused_and_owed(tmp_path: Path) -> None:
    token = Token(id="a", sha256="0" * 64, namespaces=("a",), rights=frozenset({"encode"}), bytes_per_s=1000)
    caller = Caller(token)

    async def scenario() -> None:
        upload = receiving(spool(tmp_path), 100)
        await upload.add(b"x" * 60)
        with pytest.raises(InvalidArgument) as caught:
            await upload.add(b"x" * 60_000_041)
        assert (caught.value.reason, caught.value.field) == ("TOO_MANY_BYTES", "chunk")
        assert upload.missing == 40  # nothing of it was kept

    run(scenario(), caller)
    with pytest.raises(ResourceExhausted):
        caller.charge(announced_bytes=1)


def test_an_upload_must_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    into = spool(tmp_path)

    async def scenario() -> None:
        nonlocal now
        upload = receiving(into, 64 * MIB)
        assert upload.left_s == 10 * PAUSE_S  # nothing is kept yet, and clients send one file after another
        now += 5 * PAUSE_S
        await upload.add(bytes(LEAST_BYTES_PER_S))
        assert upload.left_s == PAUSE_S
        now += PAUSE_S / 2
        await upload.add(b"")  # is no progress
        assert upload.left_s == PAUSE_S / 2
        await upload.add(bytes(100 * LEAST_BYTES_PER_S))
        assert upload.left_s == PAUSE_S
        # One byte now and then does not do: it has to come at some rate.
        slow = receiving(into, 1000)
        for _ in range(4):
            await slow.add(b"x")
            now += PAUSE_S / 4
        assert slow.left_s == pytest.approx(0, abs=0.01)
        upload.close()
        slow.close()

    run(scenario())


def test_a_stalled_upload_is_told_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        upload = Receiving(SimpleNamespace(size_bytes=10), spool(tmp_path), 0.05)  # type: ignore[arg-type]
        await upload.add(b"x")
        with pytest.raises(DeadlineExceeded, match="9 bytes of the file are missing") as caught:
            await upload.wait(asyncio.Event().wait())
        assert (caught.value.reason, caught.value.field) == ("UPLOAD_STALLED", "chunk")
        upload.close()

    run(scenario())


def test_without_a_disk_files_stay_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        upload = receiving(spool(tmp_path / "missing", spool_above_bytes=0), len(DATA))
        await upload.add(DATA)
        assert upload.file is not None
        assert upload.file.read() == DATA
        upload.close()

    run(scenario())
    assert "uploads are kept in memory alone" in caplog.text


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        upload = receiving(spool(tmp_path, spool_above_bytes=0), len(DATA))
        await upload.add(b"x")
        assert upload.file is not None
        monkeypatch.setattr(upload.file, "_on_disk", SimpleNamespace(write=_no_space, close=lambda: None))
        with pytest.raises(Unavailable) as caught:
            await upload.add(DATA[1:])
        assert caught.value.reason == "SPOOL_FAILED"
        upload.close()

    run(scenario())


def _no_space(_: object) -> None:
    raise OSError(28, "No space left on device")


def test_files_take_their_room_before_they_are_kept(tmp_path: Path) -> None:
    into = spool(tmp_path, upload_bytes=10 * MIB, spool_above_bytes=MIB, spool_bytes=300 * MIB)

    async def held(size: int) -> list[Receiving]:
        """Begins uploads, which lack a byte, until there is no more room."""
        begun: list[Receiving] = []

        async def fill() -> None:
            while True:
                begun.append(receiving(into, size))
                await begun[-1].add(bytes(min(size - 1, 70_000)))

        with pytest.raises(ResourceExhausted) as caught:
            await fill()
        assert caught.value.reason == "TOO_MUCH_IN_PROGRESS"
        assert caught.value.retry_after_s
        return begun

    async def scenario() -> None:
        on_disk = await held(64 * MIB)
        assert into.disk.held == 64 * MIB * (len(on_disk) - 1) <= 200 * MIB
        assert into.memory.held <= 10 * MIB
        small = await held(MIB)
        assert into.memory.held <= 10 * MIB
        assert small
        for upload in (*on_disk, *small):
            upload.close()
            upload.close()  # does no harm
        assert (into.memory.held, into.disk.held) == (0, 0)

    run(scenario())


def test_a_file_is_kept_as_long_as_anybody_holds_it(tmp_path: Path) -> None:
    into = spool(tmp_path, spool_above_bytes=0)

    async def scenario() -> None:
        upload = receiving(into, len(DATA))
        await upload.add(DATA)
        file = upload.file
        assert file is not None
        with file.held():
            upload.close()  # its sender leaves, and others wait for the image
            assert into.disk.held == len(DATA)
            assert file.read() == DATA
        assert into.disk.held == 0

    run(scenario())
