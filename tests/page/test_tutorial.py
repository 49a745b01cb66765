"""The page that docs/tutorials/annotation-tool.md builds, as it stands there, in Chromium."""

import functools
import http.server
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from maskwire import Client
from pycocotools import mask as coco

from testing.documents import snippets
from testing.paths import ROOT
from testing.servers import Stack, running_gateway
from testing.web_server import answering

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PAINTED = """() => {
    const canvas = document.querySelector('#mask');
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    let painted = 0;
    for (let i = 3; i < pixels.length; i += 4) painted += pixels[i] > 0;
    return painted;
}"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Serves the folder as the tutorial does, on a port of its own. Yields its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, answering(server):
        yield f"http://127.0.0.1:{server.server_port}"


def test_an_object_is_clicked_undone_and_saved(
    browser: "Browser", stack: Stack, client: Client, served: str, photo: Path, tmp_path: Path
) -> None:
    (page,) = [found for found in snippets(ROOT / "docs/tutorials/annotation-tool.md") if found.title]
    with running_gateway(stack, "--origins", served) as (gateway, _):
        (tmp_path / page.title).write_text(page.text.replace("http://localhost:9001", gateway))
        tab = browser.new_page()
        failures: list[str] = []
        tab.on("pageerror", lambda error: failures.append(str(error)))
        tab.goto(f"{served}/{page.title}")
        tab.set_input_files("#file", photo)
        tab.wait_for_function("() => document.querySelector('#status').value.includes('600 x 400')")
        tab.click("#photo", position={"x": 260, "y": 130})
        tab.wait_for_function("() => document.querySelector('#status').value.includes('score')")
        expected = client.segment(photo, points=[(260, 130)]).mask
        assert tab.evaluate(PAINTED) == expected.sum() > 0
        with tab.expect_download() as download:
            tab.click("#save")
        rle = json.loads(Path(download.value.path()).read_text())
        assert np.array_equal(coco.decode(rle).astype(bool), expected)
        tab.click("#photo", position={"x": 300, "y": 330}, modifiers=["Shift"])
        tab.wait_for_function(f"() => ![0, {expected.sum()}].includes(({PAINTED})())")
        tab.click("#undo")
        tab.wait_for_function(f"() => ({PAINTED})() === {expected.sum()}")
        tab.click("#undo")
        tab.wait_for_function(f"() => ({PAINTED})() === 0")
        tab.close()
    assert failures == []
