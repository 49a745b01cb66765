"""Rows 39 to 41: what a tracker needs dies while it follows objects through a clip, and so does the tracker itself."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from maskwire import Client, MaskwireError, TrackedFrame

from testing.processes import wait_until
from testing.reference.video import write_clip

from . import processes
from .processes import Server
from .results import Observation
from .world import World

FRAMES, WIDTH, HEIGHT = 20, 240, 180
AHEAD = 8  # frames that a tracker may be ahead of its caller
Found = list[tuple[int, dict[str, str]]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "frames", photo, FRAMES, WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def started(cluster: World) -> Iterator[list[Server]]:
    trackers = [processes.tracker(cluster.folder, cluster.url, cluster.encoders).start() for _ in range(2)]
    try:
        yield trackers
    finally:
        for server in trackers:
            if server.lives:
                server.end()


@pytest.fixture
def trackers(started: list[Server]) -> list[Server]:
    for server in started:
        if not server.lives:
            server.start()
    return [server.wait() for server in started]


@pytest.fixture(scope="module")
def right(cluster: World, started: list[Server], clip: Path) -> Found:
    """The masks of a clip that nothing disturbs."""
    cluster.mend()
    with client(cluster, [server.wait() for server in started]) as calm:
        return found(list(following(calm, clip)))


def client(world: World, trackers: list[Server]) -> Client:
    return world.client(tracker=",".join(server.address for server in trackers))


def following(client: Client, clip: Path) -> Iterator[TrackedFrame]:
    """Follows two objects through the clip, handing over their masks, since the small model has no memory."""
    with client.track(clip, hand_over=True) as track:
        track.box(60, 30, 180, 150, object="one")
        track.click(60, 125, object="two")
        yield from track.follow()


def found(frames: list[TrackedFrame]) -> Found:
    return [(frame.index, {name: mask.rle["counts"] for name, mask in frame.masks.items()}) for frame in frames]


def disturbed(
    world: World, trackers: list[Server], clip: Path, note: Observation, faults: Mapping[int, Callable[[], None]]
) -> Found:
    """Follows the clip, and breaks something when certain frames have come. The first frame that no tracker can
    have found before the last fault shows that all goes on."""
    frames: list[TrackedFrame] = []
    with client(world, trackers) as mw:
        for frame in following(mw, clip):
            frames.append(frame)
            if frame.index in faults:
                faults[frame.index]()
                note.fault()
            elif frame.index == max(faults) + 1 + AHEAD:
                note.recovered()
    return found(frames)


@pytest.mark.fault(39)
def test_the_encoder_is_killed(
    world: World, trackers: list[Server], clip: Path, right: Found, note: Observation
) -> None:
    note.injected = "SIGKILL to the encoder that has a frame of the clip in its model"

    def kill() -> None:
        with world.switched("hold"):
            world.busy().kill()

    assert disturbed(world, trackers, clip, note, {3: kill}) == right
    note.observed = f"the tracker had the frames encoded by the other encoder; all {FRAMES} masks right"


@pytest.fixture
def lasting(world: World) -> Iterator[Server]:
    """The store, which writes to disk before it answers, and has that after a restart."""
    usual = world.store.command
    try:
        for name, value in (("appendfsync", "always"), ("appendonly", "yes")):
            world.raw.config_set(name, value)
        wait_until(lambda: not world.raw.info("persistence")["aof_rewrite_in_progress"])
        world.store.command = [*usual, "--appendonly", "yes", "--appendfsync", "always"]
        yield world.store
    finally:
        world.store.command = usual
        if world.store.lives:
            world.raw.config_set("appendonly", "no")


@pytest.mark.fault(40, variant="kept")
def test_the_store_is_restarted_with_what_it_had(
    world: World, trackers: list[Server], clip: Path, right: Found, note: Observation, lasting: Server
) -> None:
    note.injected = "SIGKILL to a store that writes to disk; started again 1 s later with what it had written"

    def restart() -> None:
        lasting.kill()
        time.sleep(1)
        lasting.start()

    assert disturbed(world, trackers, clip, note, {3: restart}) == right
    note.observed = f"the tracker waited for the store; all {FRAMES} masks right"


@pytest.mark.fault(40, variant="empty")
def test_the_store_is_restarted_empty(
    world: World, trackers: list[Server], clip: Path, right: Found, note: Observation
) -> None:
    note.injected = "SIGKILL and a new, empty store"
    frames: list[TrackedFrame] = []

    def follow_until_lost() -> None:
        for frame in following(mw, clip):
            frames.append(frame)
            if frame.index == 3:
                world.store.kill()
                world.store.start().wait()
                note.fault()

    with client(world, trackers) as mw:
        with pytest.raises(MaskwireError) as caught:
            follow_until_lost()
        assert caught.value.reason in ("CLIP_NOT_FOUND", "TAKEN_OVER")
        assert found(frames) == right[: len(frames)]
        assert found(list(following(mw, clip))) == right
        note.recovered()
    note.observed = f"{caught.value.reason}; the masks before it right, and those of the clip uploaded again"


@pytest.mark.fault(41)
def test_two_trackers_are_killed(
    world: World, trackers: list[Server], clip: Path, right: Found, note: Observation
) -> None:
    note.injected = "SIGKILL to the tracker, and to the one that went on; one more started before each"
    one, other = trackers
    other.kill()

    def kill(serving: Server, idle: Server) -> None:
        idle.start().wait()
        serving.kill()

    faults = {3: lambda: kill(one, other), 8: lambda: kill(other, one)}
    assert disturbed(world, trackers, clip, note, faults) == right
    note.observed = f"the other tracker went on with the state in the store, twice; all {FRAMES} masks right"
