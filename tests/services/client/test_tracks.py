"""Tracks of the client and `maskwire track`, against a real tracker, encoder and store."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import AsyncClient, Client, InvalidRequest, MaskwireError, TrackedFrame
from maskwire.cli.free_ports import free_port
from maskwire.cli.local_store import store_program
from maskwire.video import Clip
from maskwire_core.storage.store import Store
from PIL import Image
from pycocotools import mask as coco

from testing.clips import disc, numbered, write_film
from testing.processes import wait_until
from testing.reference.video import write_clip
from testing.servers import running_server, store_server
from testing.tracking import HEIGHT, WIDTH, add_model, running_tracker

FRAMES = 8
MODEL = "seeded"


@dataclass
class Servers:
    """A store, an encoder whose model has a memory, and a tracker; a clip as a folder and as a film."""

    redis_url: str
    encoder: str
    tracker: str
    folder: Path
    film: Path

    def client(self, tracker: str | None = None) -> Client:
        return Client(self.encoder, tracker=tracker or self.tracker)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("tracks")
    add_model(folder, MODEL)
    clip = write_clip(folder / "clip", photo, FRAMES, WIDTH, HEIGHT)
    pictures = [Image.open(path).convert("RGB") for path in sorted(clip.iterdir())]
    film = write_film(folder / "film.mp4", pictures, fps=25)
    options = ("--model", MODEL, "--models", str(folder), "--device", "cpu", "--backend", "torch")
    with (
        store_server(store_program()) as url,
        running_server("maskwire_encoder", url, *options) as (encoder, _),
        running_tracker(url, encoder) as (tracker, _),
    ):
        yield Servers(url, encoder, tracker, clip, film)


Found = list[tuple[int, dict[str, str]]]


def found(frames: list[TrackedFrame]) -> Found:
    return [(frame.index, {name: mask.rle["counts"] for name, mask in frame.masks.items()}) for frame in frames]


@pytest.fixture(scope="module")
def expected(servers: Servers) -> Found:
    """The masks of two objects that nothing disturbs."""
    with servers.client() as mw, mw.track(servers.folder) as track:
        track.click(100, 75, object="one")
        track.click(60, 125, object="two")
        return found(list(track.follow()))


def test_objects_are_followed_through_a_folder(servers: Servers, expected: Found, tmp_path: Path) -> None:
    with servers.client() as mw, mw.track(servers.folder, frame_rate=10) as track:
        assert (track.frames, track.size) == (FRAMES, (WIDTH, HEIGHT))
        clicked = track.click(100, 75, object="one")
        assert (clicked.index, set(clicked.masks), set(clicked.prompted)) == (0, {"one"}, {"one"})
        assert clicked.masks["one"].array.shape == (HEIGHT, WIDTH)
        track.click(60, 125, object="two")
        assert track.objects == ["one", "two"]
        frames = list(track.follow())
        assert found(frames) == expected
        assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(FRAMES)])
        assert frames[1].timings["total_ms"] > 0
        assert [frame.index for frame in track.follow(3, 2)] == [3, 4]
        assert [frame.index for frame in track.follow(2, reverse=True)] == [2, 1, 0]
        (path,) = track.save(tmp_path / "masks.json")
        document = json.loads(path.read_text())
        assert [each["object"] for each in document["annotations"]] == ["one", "two"]
        assert document["videos"][0]["length"] == FRAMES
        (path,) = track.save(tmp_path / "overlay.gif")
        assert Clip(path).estimated_frames == FRAMES


def test_corrections_and_removals(servers: Servers, expected: Found) -> None:
    with servers.client() as mw, mw.track(servers.folder) as track:
        track.click(100, 75, object="one")
        before = list(track.follow())[4].masks["one"]
        corrected = track.correct(30, 30, frame=4, object="one")
        assert corrected.masks["one"] != before
        assert next(iter(track.follow(4, 1))).masks["one"] == corrected.masks["one"]
        track.clear(frame=4, object="one")
        boxed = track.box(40, 40, 160, 120, frame=2, object="box")
        assert set(boxed.masks) == {"box"}
        drawn = disc((WIDTH, HEIGHT), 120, 90, 30)
        answered = track.mask(drawn, frame=1, object="drawn").masks["drawn"].array
        assert (answered & drawn).sum() / (answered | drawn).sum() > 0.8  # at the resolution of the model
        assert track.objects == ["one", "box", "drawn"]
        track.remove("one")
        assert track.objects == ["box", "drawn"]
        assert "one" not in track.masks.objects
        assert [set(frame.masks) for frame in track.follow(2, 2)] == [{"box", "drawn"}] * 2


def test_wrong_requests_change_nothing(servers: Servers) -> None:
    with servers.client() as mw, mw.track(servers.folder) as track:
        with pytest.raises(InvalidRequest) as caught:
            list(track.follow())
        assert caught.value.reason == "NOTHING_TO_FOLLOW"
        with pytest.raises(InvalidRequest) as caught:
            track.click(10, 10, frame=FRAMES)
        assert (caught.value.reason, caught.value.field) == ("NO_SUCH_FRAME", "frame")
        with pytest.raises(InvalidRequest):
            track.click(10, 10, frme=1)  # type: ignore[call-arg]  # no such argument
        with pytest.raises(InvalidRequest):
            track.follow(count=0).__next__()
        track.click(100, 75)
        assert [frame.index for frame in track.follow(count=2)] == [0, 1]


def test_leaving_a_loop_and_prompts_end_a_follow(servers: Servers) -> None:
    with servers.client() as mw, mw.track(servers.folder) as track:
        track.click(100, 75, object="one")
        for frame in track.follow():
            if frame.index == 1:
                break
        following = track.follow()
        next(following)
        track.click(60, 125, object="two")
        assert list(following) == []
        seen = []
        for frame in track.follow():
            seen.append(frame.index)
            if frame.index == 0:
                track.stop()
        assert seen[0] == 0
        assert len(track.objects) == 2


def test_a_track_goes_on_by_its_name(servers: Servers, expected: Found) -> None:
    with servers.client() as mw:
        with mw.track(servers.folder, keep=True) as track:
            track.click(100, 75, object="one")
            name = track.track_id
        with mw.track(track_id=name) as again:
            assert (again.objects, again.frames, again.clip) == (["one"], FRAMES, None)
            again.click(60, 125, object="two")
            assert found(list(again.follow())) == expected
        with mw.track(servers.folder) as other:
            gone = other.track_id
        with pytest.raises(MaskwireError) as caught:
            mw.track(track_id=gone).open()
        assert caught.value.reason


def test_another_tracker_goes_on_when_one_is_killed(servers: Servers, expected: Found) -> None:
    with contextlib.ExitStack() as trackers, contextlib.ExitStack() as stack:
        address, process = trackers.enter_context(running_tracker(servers.redis_url, servers.encoder))
        port = free_port()
        mw = stack.enter_context(servers.client(f"{address},127.0.0.1:{port}"))
        track = stack.enter_context(mw.track(servers.folder))
        track.click(100, 75, object="one")
        track.click(60, 125, object="two")
        frames = []
        for frame in track.follow():
            frames.append(frame)
            if frame.index == 3:
                trackers.enter_context(running_tracker(servers.redis_url, servers.encoder, port=port))
                process.kill()
        assert found(frames) == expected
        assert set(track.click(70, 120, frame=5, object="two").masks) == {"two"}


def test_a_clip_that_is_too_long_is_refused_before_it_is_sent(servers: Servers) -> None:
    sent: list[tuple[int, int]] = []
    with (
        running_tracker(servers.redis_url, servers.encoder, "--max-clip-frames", "4") as (tracker, _),
        servers.client(tracker) as mw,
    ):
        with pytest.raises(InvalidRequest, match=r"8 frames, and at most 4 are taken.*max_frames take fewer") as caught:
            mw.track(servers.folder).open()
        assert (caught.value.reason, caught.value.field) == ("CLIP_TOO_LONG", "clip")
        with mw.track(servers.folder, every=2, progress=lambda *done: sent.append(done)) as track:
            assert track.frames == 4
    assert sent == [(1, 4), (2, 4), (3, 4), (4, 4)]


class Uncounted(Clip):
    """A clip whose frames must not be counted, which takes long for long films."""

    def listing(self) -> list[tuple[str, float]]:
        raise AssertionError("the frames are counted")


def test_a_long_clip_is_refused_before_its_frames_are_counted(servers: Servers) -> None:
    clip = Uncounted([numbered(0)] * 1500)
    with (
        running_tracker(servers.redis_url, servers.encoder, "--max-clip-frames", "1400") as (tracker, _),
        servers.client(tracker) as mw,
        pytest.raises(InvalidRequest, match=r"has about 1500 frames, and at most 1400 are taken") as caught,
    ):
        mw.track(clip).open()
    assert caught.value.reason == "CLIP_TOO_LONG"
    with servers.client() as mw, pytest.raises(AssertionError, match="counted"):  # where it is not too long
        mw.track(clip).open()


def test_a_track_that_cannot_be_opened_leaves_no_clip(servers: Servers) -> None:
    with Store(servers.redis_url).connections.commands() as store:
        before = set(store.scan_iter("maskwire:clip:*"))
        with servers.client() as mw, pytest.raises(InvalidRequest) as caught:
            mw.track(servers.folder, max_cond_frames_in_attn=1).open()  # found out after the upload
        assert caught.value.reason == "BAD_OPTIONS"
        wait_until(lambda: set(store.scan_iter("maskwire:clip:*")) <= before)


def pictures(servers: Servers) -> list[Path]:
    return sorted(servers.folder.iterdir())


@pytest.fixture(scope="module")
def live(servers: Servers) -> Found:
    """The masks on undisturbed live frames, which differ from those of a short clip, since they may go on for ever."""
    first, *others = pictures(servers)
    with servers.client() as mw, mw.track() as track:
        assert track.add_frame(first) == 0
        track.click(100, 75, object="one")
        track.click(60, 125, object="two")
        frames = found(list(track.live(others, skip=False)))
        assert track.frames == FRAMES
        return frames


def test_live_frames_are_followed(live: Found, expected: Found) -> None:
    assert [index for index, _ in live] == list(range(FRAMES))
    assert live[0] == expected[0]
    assert all(set(masks) == {"one", "two"} for _, masks in live)


def test_prompts_come_between_live_frames(servers: Servers, expected: Found) -> None:
    first, *others = pictures(servers)

    async def scenario() -> list[tuple[int, set[str]]]:
        async with AsyncClient(servers.encoder, tracker=servers.tracker) as mw:
            track = mw.track(kept_frames=4)
            await track.add_frame(Image.open(first))
            await track.click(100, 75, object="one")
            seen, wanted = [], asyncio.Semaphore(0)

            async def camera() -> Any:
                for path in others:
                    await wanted.acquire()
                    yield path

            async for frame in track.live(camera()):
                if frame.index == 3:
                    await track.click(60, 125, frame=3, object="two")
                seen.append((frame.index, set(frame.masks)))
                wanted.release()
            await track.close()
            return seen

    seen = asyncio.run(scenario())
    assert seen == [(index, {"one"} if index <= 3 else {"one", "two"}) for index in range(FRAMES)]


def test_another_tracker_goes_on_with_live_frames(servers: Servers, live: Found) -> None:
    first, *others = pictures(servers)
    with contextlib.ExitStack() as stack:
        address, process = stack.enter_context(running_tracker(servers.redis_url, servers.encoder))
        mw = stack.enter_context(servers.client(f"{address},{servers.tracker}"))
        mw._client._connection.servers.trackers.mark_unreachable(servers.tracker)  # asked last, for a second
        track = stack.enter_context(mw.track())
        track.add_frame(first)
        track.click(100, 75, object="one")
        track.click(60, 125, object="two")
        frames = []
        for frame in track.live(others, skip=False):
            frames.append(frame)
            if frame.index == 3:
                process.kill()
        assert found(frames) == live


def test_the_asyncio_client_follows(servers: Servers, expected: Found) -> None:
    async def scenario() -> Found:
        async with AsyncClient(servers.encoder, tracker=servers.tracker) as mw, mw.track(servers.folder) as track:
            await asyncio.gather(track.click(100, 75, object="one"))
            await track.click(60, 125, object="two")
            return found([frame async for frame in track.follow()])

    assert asyncio.run(scenario()) == expected


def run(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "maskwire.cli", "track", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_the_command_writes_everything_at_once(servers: Servers, tmp_path: Path) -> None:
    environment = {**os.environ, "MASKWIRE_TRACKER": servers.tracker}
    done = run(
        *(str(servers.film), "--click", "one=100,75", "--click", "two=60,125@2", "--both-ways", "--json"),
        *("-o", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "a.json"), "-o", str(tmp_path / "masks")),
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["frames"], summary["width"], set(summary["objects"])) == (FRAMES, WIDTH, {"one", "two"})
    assert len(summary["files"]) == 2 + 1 + FRAMES
    assert len(list(Clip(tmp_path / "a.mp4"))) == FRAMES
    document = json.loads((tmp_path / "a.json").read_text())
    numbers = np.asarray(Image.open(tmp_path / "masks" / "00003.png"))
    one, _ = (each["segmentations"][3] for each in document["annotations"])
    if one is not None:
        assert np.array_equal(numbers == 1, coco.decode(one).astype(bool))


def test_ctrl_c_writes_what_was_found(servers: Servers, tmp_path: Path) -> None:
    folder, most = tmp_path / "long", 50 * FRAMES
    folder.mkdir()
    for number in range(most):
        (folder / f"{number}.jpg").hardlink_to(pictures(servers)[number % FRAMES])
    words = ("track", str(folder), "--click", "one=100,75", "--json", "-o", str(tmp_path / "found.json"))
    command = [sys.executable, "-m", "maskwire.cli", *words]
    environment = {**os.environ, "MASKWIRE_TRACKER": servers.tracker}
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process,
        Store(servers.redis_url).connections.commands() as store,
    ):
        before = set(store.scan_iter("maskwire:[ct]*:{default*"))

        def is_followed() -> bool:
            new = set(store.scan_iter("maskwire:track:{default/*")) - before
            return any(store.hlen(name) > 10 for name in new)

        wait_until(is_followed, process=process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=120)
        after = {name for name in store.scan_iter("maskwire:[ct]*:{default*") if b"/" in name}
    assert process.returncode == 130, stderr
    assert "finishing the frame under way" in stderr
    summary = json.loads(stdout)
    assert 4 < summary["frames"] < most
    (annotation,) = json.loads((tmp_path / "found.json").read_text())["annotations"]
    assert sum(mask is not None for mask in annotation["segmentations"]) == summary["objects"]["one"] > 0
    assert after <= before  # neither the track nor its clip is left
