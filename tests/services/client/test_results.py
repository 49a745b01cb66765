"""Results that can be kept: pickles, copies, files, boxes; and clients in forked processes."""

import asyncio
import base64
import copy
import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import maskwire
import numpy as np
import pytest
from maskwire import AsyncClient, Client, InvalidRequest, MaskwireError, OutputMissing, Prompt
from PIL import Image
from pycocotools import mask as coco

from testing.paths import ROOT
from testing.servers import Stack

POINT: dict[str, Any] = {"points": [(260, 130)]}


def test_results_can_be_pickled_copied_and_compared(stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        image = client.embed(photo, "kept")
        result = client.segment(photo, **POINT)
        updates = list(client.generate_masks("kept", points_per_side=2, pred_iou_thresh=0, stability_score_thresh=0))
        prompt = Prompt(mask=result.mask, **POINT)
        for value in (image, result, result.best, updates[-1], *updates[-1].masks, prompt):
            assert pickle.loads(pickle.dumps(value)) == value
            assert copy.copy(value) == value
            assert copy.deepcopy(value) == value
            assert " object at 0x" not in repr(value)
        far = pickle.loads(pickle.dumps(result))
        np.testing.assert_array_equal(far.mask, result.mask)
        for missing in (lambda: far.polygons(), lambda: far.overlay(), lambda: far.best.png):
            with pytest.raises(OutputMissing):
                missing()
        assert copy.deepcopy(result).polygons()  # fetched by its client
        assert result != client.segment(photo, points=[(400, 300)])
        with pytest.raises(InvalidRequest) as caught:
            client.segment(photo, points=[(9999, 1)])
        error = pickle.loads(pickle.dumps(caught.value))
        assert (type(error), str(error), error.reason) == (InvalidRequest, str(caught.value), "OUT_OF_IMAGE")
        assert "kept" in repr(client.session(image).image) or repr(client).startswith("<Client of encoder")


def test_results_are_saved_boxed_and_shown(stack: Stack, photo: Path, tmp_path: Path) -> None:
    with stack.client() as client:
        result = client.segment(photo, **POINT)
        rows, columns = np.nonzero(result.mask)
        assert result.area == len(rows)
        assert result.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        for name in ("m.png", "m.json", "m.npy", "m.npz"):
            result.save(tmp_path / name)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")) == 255, result.mask)
        np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), result.mask)
        np.testing.assert_array_equal(np.load(tmp_path / "m.npz")["mask"], result.mask)
        assert json.loads((tmp_path / "m.json").read_text()) == result.rle
        for path in (tmp_path / "m.jpg", tmp_path / "m", tmp_path / "missing" / "m.png"):
            with pytest.raises(InvalidRequest):
                result.save(path)
        assert result._repr_png_().startswith(b"\x89PNG")
        annotation = result.to_coco(polygons=True)
        again = coco.decode(coco.merge(coco.frPyObjects(annotation["segmentation"], 400, 600))).astype(bool)
        np.testing.assert_array_equal(again, result.mask)
        assert maskwire.__version__


def test_sessions_open_at_first_use_and_end_without_a_word(stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        session = client.session(photo)
        assert "not open" in repr(session)
        assert session.click(260, 130).rle == client.segment(photo, **POINT).rle
        session.close()
    for call in (lambda: client.segment(photo), lambda: client.embed(photo), lambda: client.session(photo).click(1, 1)):
        with pytest.raises(MaskwireError) as caught:
            call()
        assert caught.value.reason == "CLOSED"
    code = (
        "from maskwire import Client\n"
        f"c = Client({stack.encoder!r}, {stack.decoder!r})\n"
        f"for _ in range(3): c.session({str(photo)!r}).click(9, 9)\n"
        f"s = c.session({str(photo)!r}); s.click(9, 9)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")

    async def asynchronous() -> str:
        async with AsyncClient(stack.encoder, stack.decoder) as other:
            return (await other.session(photo).click(260, 130)).rle["counts"]  # type: ignore[no-any-return]

    with stack.client() as client:
        assert asyncio.run(asynchronous()) == client.segment(photo, **POINT).rle["counts"]


FORKS = """
import asyncio, multiprocessing, os, sys, time
from maskwire import AsyncClient, MaskwireError
encoder, decoder, photo = sys.argv[1:]

def reason(make):
    began = time.monotonic()
    try:
        asyncio.run(make())
    except MaskwireError as error:
        return error.reason if time.monotonic() - began < 2 else "late"
    return "none"

async def run():
    async with AsyncClient(encoder, decoder) as client:
        await client.segment(photo, points=[(9, 9)])
        session = client.session(photo)
        await session.click(9, 9)
        updates = client.generate_masks(photo, points_per_side=2)
        async def call(): await client.segment(photo, points=[(9, 9)])
        async def new():
            async with AsyncClient(encoder, decoder) as other: await other.segment(photo)
        async def click(): await session.click(1, 1)
        async def iterate(): await anext(updates)
        async def many():
            async for _ in client.embed_many([photo]): pass
        for _ in range(12):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                asyncio.events._set_running_loop(None)
                said = " ".join(reason(make) for make in (call, new, click, iterate, many))
                os.write(writer, said.encode())
                os._exit(0)
            os.close(writer)  # else a child that dies would look like one that hangs
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            print(status, os.read(reader, 1000).decode())
        await client.segment(photo, points=[(9, 9)])  # the parent goes on

asyncio.run(run())
"""


def test_a_forked_process_is_told_so_at_once(stack: Stack, photo: Path) -> None:
    """With gRPC's own fork handlers, one child in six was killed by SIGABRT or SIGSEGV."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS, stack.encoder, stack.decoder, str(photo)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.splitlines() == ["0" + 5 * " FORKED"] * 12, ran.stderr


def _forked(client: Client, queue: Any) -> None:
    try:
        client.segment(str(ROOT / "examples" / "coffee.jpg"))
    except MaskwireError as error:
        queue.put(error.reason)


def test_multiprocessings_fork_is_told_so(stack: Stack) -> None:
    context = multiprocessing.get_context("fork")
    with stack.client() as client:
        client.models()
        queue = context.Queue()
        process = context.Process(target=_forked, args=(client, queue))
        process.start()
        assert queue.get(timeout=20) == "FORKED"
        process.join(20)
        assert process.exitcode == 0


def test_notebooks_show_the_picture_under_a_line_of_text(stack: Stack, photo: Path) -> None:
    with stack.client() as client:
        result = client.segment(photo, points=[(260, 130)])
    page = result._repr_html_()
    assert page.startswith("<div>&lt;Result on ")
    assert base64.b64encode(result._repr_png_()).decode() in page
