"""A track goes on where its stream was lost, and the command's prompts are read as they are written."""

import asyncio
from collections import deque
from typing import Any

import pytest
import typer
from maskwire.cli.track_options import ObjectPrompt, parse_boxed, parse_click
from maskwire.errors import MaskwireError, ServerUnavailable
from maskwire.track_connection import TrackConnection
from maskwire.transport.track_stream import TrackStreamLost
from maskwire.v1 import tracker_pb2 as pb

FRAMES = 10


class Stream:
    """A stream on which a tracker follows, and that is lost after some frames."""

    def __init__(self, followed_to: int | None, lasts: int) -> None:
        self.info = pb.TrackInfo(track_id="t", clip_id="c", width_px=4, height_px=3, frames=FRAMES)
        if followed_to is not None:
            self.info.followed_to = followed_to
        self.is_lost = False
        self.asked: list[pb.Follow] = []
        self._lasts = lasts

    async def ask(self, follow: pb.Follow) -> Any:
        self.asked.append(follow)
        return Answers(self, follow, self._lasts)

    def forget(self, answers: Any) -> None:
        pass

    async def stop(self) -> None:
        raise TrackStreamLost(ServerUnavailable("lost"))


class Answers:
    def __init__(self, stream: Stream, follow: pb.Follow, lasts: int) -> None:
        start = follow.start if follow.HasField("start") else 0
        most = follow.most if follow.HasField("most") else FRAMES
        step = -1 if follow.reverse else 1
        last = max(0, start - most) if follow.reverse else min(FRAMES - 1, start + most)
        self._frames = deque(range(start, last + step, step))
        self._stream, self._lasts = stream, lasts

    async def next(self, patient: bool = False) -> pb.TrackResponse:
        if not self._lasts:
            self._stream.is_lost = True
            raise TrackStreamLost(ServerUnavailable("the tracker was killed"))
        self._lasts -= 1
        if not self._frames:
            return pb.TrackResponse(followed=self._stream.info)
        return pb.TrackResponse(masks=pb.FrameMasks(frame=self._frames.popleft()))


class Opening:
    is_live, keep, clip, known_size = False, True, None, None
    times_s: tuple[float, ...] = ()

    def __init__(self, *streams: Stream) -> None:
        self.left = deque(streams)

    async def prepare(self) -> None:
        pass

    async def connect(self, track_id: str) -> Any:
        return self.left.popleft()


class Connection:
    class servers:
        @staticmethod
        def check() -> None:
            pass


def follow(*streams: Stream, **arguments: Any) -> list[int]:
    async def read() -> list[int]:
        given: Any = (Connection(), Opening(*streams))
        track = TrackConnection(*given)
        how = {"start": None, "count": None, "reverse": False, **arguments}
        return [frame.index async for frame in track.follow(**how)]

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("stored", "resumed"),
    [
        (3, 4),  # the store is behind what was read: frames 4 and 5 are found again, and not given twice
        (5, 6),
        (8, 6),  # it is ahead, and what is between was not read
        (None, 0),  # nothing is stored
    ],
)
def test_a_follow_goes_on_behind_the_last_frame_that_was_read(stored: int | None, resumed: int) -> None:
    second = Stream(stored, 99)
    assert follow(Stream(None, 6), second) == list(range(FRAMES))
    assert [each.start for each in second.asked] == [resumed]


def test_what_an_earlier_follow_stored_does_not_count() -> None:
    second = Stream(4, 99)
    assert follow(Stream(4, 6), second) == list(range(FRAMES))
    assert [each.start for each in second.asked] == [0]


def test_a_number_of_frames_is_kept() -> None:
    second = Stream(4, 99)
    assert follow(Stream(None, 4), second, start=2, count=6) == [2, 3, 4, 5, 6, 7]
    assert [(each.start, each.most) for each in second.asked] == [(5, 2)]


def test_backwards_likewise() -> None:
    second = Stream(7, 99)
    assert follow(Stream(None, 3), second, start=8, reverse=True) == list(range(8, -1, -1))
    assert [each.start for each in second.asked] == [6]


def test_a_stream_that_is_lost_after_the_last_frame_is_not_opened_again() -> None:
    assert follow(Stream(None, FRAMES)) == list(range(FRAMES))
    assert follow(Stream(None, 3), start=2, count=3) == [2, 3, 4]


def test_trackers_that_are_lost_again_and_again_are_given_up() -> None:
    with pytest.raises(MaskwireError, match="the tracker was killed"):
        follow(*(Stream(None, 0) for _ in range(6)))
    lost_often = [Stream(None, 1), *(Stream(frame, 1) for frame in range(FRAMES))]
    assert follow(*lost_often, Stream(FRAMES - 1, 9)) == list(range(FRAMES))


def test_prompts_name_objects_and_frames() -> None:
    assert parse_click("120,80") == ObjectPrompt((120, 80), None, None)
    assert parse_click("ball=120.5, 80@12") == ObjectPrompt((120.5, 80), "ball", 12)
    assert parse_click("a=b=1,2") == ObjectPrompt((1, 2), "a=b", None)
    assert parse_boxed("cup=1,2,3,4@0") == ObjectPrompt((1, 2, 3, 4), "cup", 0)
    for wrong in ("1,2@", "1,2@x", "1@2,3", "ball=1", "1,2,3"):
        with pytest.raises(typer.BadParameter):
            parse_click(wrong)
