"""Pictures of all formats in the page: clicked, or refused in words that help."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, expect

from testing.chromium import Tab

OpenTab = Callable[..., Tab]


def picture() -> Image.Image:
    image = Image.new("RGB", (240, 160), (230, 225, 215))
    ImageDraw.Draw(image).ellipse((60, 30, 170, 130), fill=(40, 90, 200))
    return image


@pytest.fixture(scope="module")
def used(browser: Browser, gateway: str) -> Iterator[Tab]:
    """A tab for one picture after the other: to load the page is most of the work of a test."""
    tab = Tab(browser, gateway)
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def empty(browser: Browser, gateway: str) -> Iterator[Tab]:
    """A tab that shows no picture, whatever it is given."""
    tab = Tab(browser, gateway)
    yield tab
    tab.close()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.avif", "a.bmp", "a.ico"])
def test_what_browsers_show_is_clicked(used: Tab, tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {"sizes": [(240, 160)]} if name == "a.ico" else {}
    picture().save(tmp_path / name, **options)
    used.open_file(tmp_path / name)
    expect(used.page.locator("#title")).to_contain_text("240 \u00d7 160")
    used.click(115, 80)
    used.until("it.mask")
    assert used.page.locator(".notice").count() == 0
    assert used.failures == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.tif", "a.tif is a TIFF file, which this browser cannot show. Save it as PNG or JPEG"),
        ("a.jp2", "a.jp2 is a JPEG 2000 file, which this browser cannot show. Save it as PNG or JPEG"),
        ("a.ppm", "a.ppm is a PPM/PGM file, which this browser cannot show."),
        ("a.tga", "a.tga is a TGA file, which this browser cannot show."),
        ("a.pdf", "a.pdf is a PDF file, which this browser cannot show. It is a document: export the page as PNG"),
        ("a.heic", "a.heic is an HEIC file, which this browser cannot show. Share or export it as JPEG"),
        ("a.svg", "a.svg is an SVG file, which this browser cannot show. It is a drawing without pixels"),
        ("a.mp4", "a.mp4 is a video, which this browser cannot show. Save a single picture of it"),
        ("cut.png", "cut.png is a damaged PNG file"),
        ("empty.jpg", "empty.jpg is empty: it has 0 bytes."),
    ],
)
def test_what_browsers_do_not_show_is_refused(empty: Tab, tmp_path: Path, name: str, words: str) -> None:
    path = tmp_path / name
    boxes = {"a.heic": b"heic\0\0\0\0mif1heic", "a.mp4": b"isom\0\0\2\0isomiso2avc1mp41"}
    if name in boxes:
        path.write_bytes((len(boxes[name]) + 8).to_bytes(4, "big") + b"ftyp" + boxes[name] + bytes(400))
    elif name == "a.svg":
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><circle r="9"/></svg>')
    elif name == "empty.jpg":
        path.write_bytes(b"")
    else:
        picture().save(path)
        if name == "cut.png":
            path.write_bytes(path.read_bytes()[:60])
    empty.page.set_input_files("#file", path)
    expect(empty.page.get_by_role("alert")).to_contain_text(words)
    expect(empty.page.locator("#welcome")).to_be_visible()
    expect(empty.page.locator("#images li")).to_have_count(0)
    assert empty.failures == []


def test_what_the_server_cannot_read_is_sent_as_it_is_shown(open_tab: OpenTab, tmp_path: Path) -> None:
    """A JPEG that ends early: browsers show the part that is there, the server refuses it."""
    noise = np.random.default_rng(3).integers(0, 255, (160, 240, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    data = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) * 3 // 4])
    tab = open_tab()
    tab.page.set_input_files("#file", tmp_path / "cut.jpg")
    tab.page.wait_for_function("() => document.querySelector('.notice, #connection[data-state=open]')")
    if tab.page.locator(".notice").count():
        expect(tab.page.locator("#welcome")).to_be_visible()  # this browser does not show it, either
        return
    tab.click(115, 40)
    tab.until("it.mask")


@pytest.mark.parametrize("name", ["turned.png", "turned.webp"])
def test_turned_pictures_are_seen_alike(used: Tab, tmp_path: Path, name: str) -> None:
    """Upside down: nothing in width and height would say so."""
    exif = Image.Exif()
    exif[0x0112] = 3
    picture().save(tmp_path / name, exif=exif)
    used.open_file(tmp_path / name)
    used.click(115, 80)
    used.until("it.mask")
    assert used.page.evaluate("() => app.workspace.picture._isConverted")
