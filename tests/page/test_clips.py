"""The page for clips in a real browser: open, click, follow, correct, follow again, take home."""

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import Client
from maskwire.video import Clip, MaskSequence, save
from PIL import Image, ImageColor
from playwright.sync_api import WebSocketRoute, expect
from pycocotools import mask as coco

from testing.chromium import Tab
from testing.clips import write_film
from testing.reference.video import write_clip
from testing.servers import Stack, running_gateway
from testing.tracking import HEIGHT, WIDTH, running_tracker

OpenTab = Callable[..., Tab]
FRAMES = 6
CLICK, BOX, WRONG = (120, 90), (20, 130, 90, 175), (200, 150)


@dataclass
class Site:
    """A gateway with its page, and the tracker behind it."""

    gateway: str
    tracker: str


@pytest.fixture(scope="module")
def site(stack: Stack) -> Iterator[Site]:
    with (
        running_tracker(stack.redis_url, stack.encoder) as (tracker, _),
        running_gateway(stack, "--tracker", tracker) as (gateway, _),
    ):
        yield Site(gateway, tracker)


@pytest.fixture(scope="module")
def pictures(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The frames of a clip in which a cup moves."""
    return sorted(write_clip(tmp_path_factory.mktemp("clips") / "frames", photo, FRAMES, WIDTH, HEIGHT).glob("*.jpg"))


def frames_of(tab: Tab, folder: Path) -> list[Path]:
    """Writes the files that the page has sent to the server."""
    script = """async () => Promise.all(app.editor.track._clip.frames.map(async ({ blob }) => {
        const bytes = new Uint8Array(await blob.arrayBuffer());
        return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
    }))"""
    folder.mkdir()
    paths = []
    for index, text in enumerate(tab.page.evaluate(script)):
        paths.append(folder / f"{index:05}.jpg")
        paths[-1].write_bytes(base64.b64decode(text))
    return paths


def masks_of(tab: Tab) -> list[dict[str, str]]:
    """Returns the masks of each frame that are not empty, by object."""
    script = """() => Array.from({ length: app.editor.at.frames }, (_, frame) => Object.fromEntries(
        app.editor.objects.items.flatMap(({ id, found }) => {
            const seen = found.get(frame);
            return seen && !seen.isEmpty ? [[id, seen.rle.counts]] : [];
        })))"""
    found: list[dict[str, str]] = tab.page.evaluate(script)
    return found


def idle(tab: Tab) -> None:
    tab.page.wait_for_function(
        "() => !app.editor.following && app.editor.objects.items.every((item) => !item.pending.length)"
    )


def follow(tab: Tab, key: str) -> None:
    tab.page.keyboard.press(key)
    idle(tab)


def shown(tab: Tab, frame: int) -> None:
    tab.page.wait_for_function("frame => app.editor.at.frame === frame", arg=frame)


def test_a_film_is_followed_corrected_and_taken_home(
    open_tab: OpenTab, stack: Stack, site: Site, pictures: list[Path], tmp_path: Path
) -> None:
    film = write_film(tmp_path / "cup.webm", [Image.open(path) for path in pictures], codec="libvpx-vp9")
    tab = open_tab(f"{site.gateway}/video", script="/assets/video/app.js")
    page = tab.page
    tab.picture("clips-welcome.png")
    page.set_input_files("#file", film)
    expect(page.locator("#take-count")).to_have_text(f"{FRAMES} frames")
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator("#hand-over")).to_contain_text("no memory of a clip")
    page.get_by_role("button", name="Use hand-over").click()
    tab.until_connected()
    expect(page.locator("#about")).to_be_visible()
    expect(page.locator("#follow")).to_be_disabled()

    page.locator("[data-tool=include]").press("ArrowRight")
    page.locator("[data-tool=exclude]:focus").press("ArrowLeft")
    expect(page.locator("[data-tool=include]")).to_be_checked()
    tab.click(*CLICK)
    page.wait_for_function("() => app.editor.objects.selected.found.size === 1")
    follow(tab, "f")
    shown(tab, FRAMES - 1)
    tab.picture("clips-followed.png")
    first = masks_of(tab)
    page.keyboard.press("n")
    page.keyboard.press("Home")
    for frame in range(1, 4):
        page.keyboard.press(".")
        shown(tab, frame)
    tab.drag(*BOX[:2], *BOX[2:])
    idle(tab)
    page.keyboard.press("[")
    tab.click(*WRONG, button="right")
    idle(tab)
    follow(tab, "f")
    page.keyboard.press("Home")
    page.locator("#strip").click(position={"x": page.locator("#strip").bounding_box()["width"] * 3.5 / FRAMES, "y": 20})  # type: ignore[index]
    shown(tab, 3)
    follow(tab, "Shift+F")
    shown(tab, 0)
    second = masks_of(tab)
    page.keyboard.press("]")
    page.keyboard.press("r")
    page.keyboard.type("plate")
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    shown(tab, FRAMES - 1)
    tab.look_away()
    tab.picture("clips-corrected.png")

    files = frames_of(tab, tmp_path / "sent")
    with Client(stack.encoder, tracker=site.tracker) as client, client.track(files, hand_over=True) as track:
        track.click(*CLICK, object="object-1")
        list(track.follow(start=0))
        assert first == counts(track.masks)
        track.box(*BOX, frame=3, object="object-2")
        track.click(*WRONG, frame=3, object="object-1", positive=False)
        list(track.follow(start=3))
        list(track.follow(start=3, reverse=True))
        assert second == counts(track.masks)

    masks = MaskSequence(WIDTH, HEIGHT)
    names = {"object-1": "Object 1", "object-2": "plate"}
    for index, frame in enumerate(second):
        masks.add(index, {names[each]: {"size": [HEIGHT, WIDTH], "counts": rle} for each, rle in sorted(frame.items())})
    save(masks, tmp_path / "expected.json", Clip(film))
    save(masks, tmp_path / "expected", Clip(film))
    assert json.loads(tab.download("YouTube-VIS").read_text()) == json.loads((tmp_path / "expected.json").read_text())
    with zipfile.ZipFile(tab.download("DAVIS")) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(path.name for path in (tmp_path / "expected").iterdir())
        for path in (tmp_path / "expected").glob("*.png"):
            got, wanted = Image.open(io.BytesIO(archive.read(path.name))), Image.open(path)
            np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))
            assert (got.getpalette() or [])[:30] == (wanted.getpalette() or [])[:30]
        assert json.loads(archive.read("objects.json")) == {"1": "Object 1", "2": "plate"}

    written = tab.download("Film").rename(tmp_path / "drawn.webm")
    check_film(written, Clip(film), second, page.evaluate(COLOURS))

    page.keyboard.press("Home")
    shown(tab, 0)
    page.keyboard.press("p")
    shown(tab, FRAMES - 1)
    page.keyboard.press("Delete")
    expect(page.locator("#objects li")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#objects li")).to_have_count(2)
    page.set_viewport_size({"width": 390, "height": 780})
    page.wait_for_timeout(100)
    tab.picture("clips-phone.png")


COLOURS = "() => Object.fromEntries(app.editor.objects.items.map(({ id, colour }) => [id, colour]))"


def check_film(path: Path, clip: Clip, masks: list[dict[str, str]], colours: dict[str, str]) -> None:
    """The film has the clip's frames at their times, and on each object something of its colour."""
    for drawn, frame, found in zip(Clip(path), clip, masks, strict=True):
        assert drawn.time_s == pytest.approx(frame.time_s, abs=0.002)
        got, before = (np.asarray(each.picture, np.float32) for each in (drawn, frame))
        assert got.shape == before.shape
        inside = {
            name: coco.decode({"size": [HEIGHT, WIDTH], "counts": rle.encode()}) > 0 for name, rle in found.items()
        }
        for name, mask in inside.items():
            colour = np.array(ImageColor.getrgb(colours[name]), np.float32)
            alone = mask & (sum(inside.values()) == 1)
            nearer = np.abs(before - colour)[alone].mean() - np.abs(got - colour)[alone].mean()
            assert nearer > 0.2 * np.abs(before - colour)[alone].mean()


def counts(masks: MaskSequence) -> list[dict[str, str]]:
    return [{name: rle["counts"] for name, rle in masks.rles(index).items()} for index in range(FRAMES)]


def test_what_may_be_opened(open_tab: OpenTab, site: Site, pictures: list[Path], tmp_path: Path) -> None:
    """An animation's frames are exact, pictures are sent as they are, and the rest is explained."""
    frames = [Image.open(path).quantize(16) for path in pictures[:3]]
    frames[0].save(tmp_path / "cup.gif", save_all=True, append_images=frames[1:], duration=80)
    (tmp_path / "notes.txt").write_text("no film")
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    tab = open_tab(f"{site.gateway}/video", script="/assets/video/app.js")
    page = tab.page

    def opened(*paths: Path) -> Any:
        page.set_input_files("#file", paths)
        page.get_by_role("button", name="Use hand-over").click()
        expect(page.locator("#title")).to_contain_text(paths[0].name)
        tab.until_connected()
        return page.evaluate("() => { const { name, length, rate } = app.player.clip; return [name, length, rate] }")

    assert opened(tmp_path / "cup.gif") == ["cup.gif", 3, 12.5]
    for path, frame in zip(frames_of(tab, tmp_path / "gif"), frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path).convert("RGB")), np.asarray(frame.convert("RGB")))
    assert opened(*pictures)[1:] == [FRAMES, 24]
    assert [path.read_bytes() for path in frames_of(tab, tmp_path / "jpg")] == [path.read_bytes() for path in pictures]
    for paths, said in (
        ([tmp_path / "notes.txt"], "notes.txt is no film"),
        ([pictures[0], tmp_path / "small.png"], "small.png is 10"),
    ):
        page.set_input_files("#file", paths)
        expect(page.locator("#notices")).to_contain_text(said)


def test_a_track_goes_on_when_its_socket_or_the_track_itself_is_lost(
    open_tab: OpenTab, site: Site, pictures: list[Path]
) -> None:
    """The masks are those that would have been; where the server has lost the track, the clicks are given again."""
    tab = open_tab(f"{site.gateway}/video", script="/assets/video/app.js")
    opened: list[str] = []
    breaks = forgets = False

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def ask(frame: Any) -> None:
            request = json.loads(frame)
            if "open" in request:
                opened.append(request["open"].get("track_id", ""))
            if forgets and request.get("open", {}).get("track_id"):
                socket.send(json.dumps({"request_id": "open", "error": {"code": 5, "message": "there is no track"}}))
            else:
                server.send(frame)

        def answer(frame: Any) -> None:
            nonlocal breaks
            if breaks and json.loads(frame).get("masks", {}).get("frame") == 3:
                breaks = False
                socket.close(code=1012)
            else:
                socket.send(frame)

        socket.on_message(ask)
        server.on_message(answer)

    tab.page.route_web_socket("**/v1/track", relay)
    tab.page.set_input_files("#file", pictures)
    tab.page.get_by_role("button", name="Use hand-over").click()
    tab.until_connected()
    tab.click(*CLICK)
    tab.page.wait_for_function("() => app.editor.objects.selected.found.size === 1")

    def followed() -> list[dict[str, str]]:
        tab.page.evaluate("() => { for (const item of app.editor.objects.items) item.found.clear() }")
        tab.page.keyboard.press("Home")
        shown(tab, 0)
        follow(tab, "f")
        return masks_of(tab)

    expected = followed()
    assert all(expected)
    assert opened == [""]
    breaks = True
    assert followed() == expected
    assert len(opened) == 2
    assert opened[1]
    breaks = forgets = True
    assert followed() == expected
    assert opened[2:] == [opened[1], ""]
    expect(tab.page.locator("#spoken")).to_contain_text("no longer had the clip")
