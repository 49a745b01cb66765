"""Which memories and pointers a frame recalls."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maskwire_tracker.options import TrackOptions
from maskwire_tracker.remembered import Remembered, TrackedObject, from_bf16, to_bf16
from maskwire_tracker.selection import closest, recall

from testing.tracker_config import small_config

CONFIG = small_config(64, 16)


def seen(frame: int) -> Remembered:
    """An object whose memory and pointer are the number of its frame."""
    value = np.array([float(frame)], np.float32)
    return Remembered(value, 1.0, None, to_bf16(value[:, None]))


def tracked(prompted: list[int], followed: list[int]) -> TrackedObject:
    return TrackedObject(
        prompted={frame: seen(frame) for frame in prompted}, followed={frame: seen(frame) for frame in followed}
    )


def memories(found: TrackedObject, frame: int, backwards: bool = False, **options: int) -> list[tuple[int, int]]:
    """The recalled frames, each with its place."""
    recalled = recall(CONFIG, TrackOptions(**options), found, frame, 100, backwards)  # type: ignore[arg-type]
    return list(zip(recalled.memories[:, 0, 0].astype(int).tolist(), recalled.places.tolist(), strict=True))


def pointers(found: TrackedObject, frame: int, backwards: bool = False, **options: int) -> list[tuple[int, int]]:
    """The frames of the recalled pointers, each with its distance in frames."""
    recalled = recall(CONFIG, TrackOptions(**options), found, frame, 100, backwards)  # type: ignore[arg-type]
    distances = np.rint(recalled.distances * 15).astype(int).tolist()
    return list(zip(recalled.pointers[:, 0].astype(int).tolist(), distances, strict=True))


def test_the_last_six_frames_are_recalled_behind_the_prompted_one() -> None:
    found = tracked([0], list(range(1, 20)))
    assert memories(found, 20) == [(0, 6), (14, 5), (15, 4), (16, 3), (17, 2), (18, 1), (19, 0)]
    assert pointers(found, 20) == [(0, 20), *((20 - distance, distance) for distance in range(1, 16))]


def test_backwards_the_next_six_frames_are_recalled() -> None:
    found = tracked([50], list(range(30, 50)))
    assert memories(found, 29, backwards=True) == [(50, 6), (35, 5), (34, 4), (33, 3), (32, 2), (31, 1), (30, 0)]
    assert pointers(found, 29, backwards=True)[:3] == [(50, 21), (30, 1), (31, 2)]


def test_a_stride_takes_the_last_frame_and_every_so_many_th_before_it() -> None:
    found = tracked([0], list(range(1, 21)))
    frames = [frame for frame, _ in memories(found, 21, memory_temporal_stride_for_eval=3)]
    assert frames == [0, 6, 9, 12, 15, 18, 20]
    backwards = tracked([60], list(range(31, 60)))
    frames = [frame for frame, _ in memories(backwards, 30, backwards=True, memory_temporal_stride_for_eval=3)]
    assert frames == [60, 45, 42, 39, 36, 33, 31]


def test_frames_that_were_not_followed_are_left_out() -> None:
    assert memories(tracked([0], [1, 4]), 5) == [(0, 6), (1, 3), (4, 0)]
    assert pointers(tracked([0], [1, 4]), 5) == [(0, 5), (4, 1), (1, 4)]


def test_pointers_of_later_prompted_frames_are_left_out() -> None:
    assert pointers(tracked([2, 9], []), 5) == [(2, 3)]
    assert pointers(tracked([2, 9], []), 5, backwards=True) == [(9, 4)]
    assert [frame for frame, _ in memories(tracked([2, 9], []), 5)] == [2, 9]


def test_prompted_frames_that_are_not_attended_to_count_as_followed() -> None:
    found = tracked([0, 10, 18, 19, 25], [])
    assert memories(found, 20, max_cond_frames_in_attn=2) == [(19, 6), (25, 6), (18, 1)]
    assert pointers(found, 20, max_cond_frames_in_attn=2) == [(19, 1), (18, 2), (10, 10)]


def test_without_a_pointer_in_reach_there_is_none() -> None:
    recalled = recall(CONFIG, TrackOptions(), tracked([9], []), 5, 100, False)
    assert recalled.pointers.shape == (0, 1)
    assert recalled.distances.shape == (0,)


def test_a_memory_that_was_dropped_is_not_recalled_silently() -> None:
    found = tracked([0], [])
    found.followed[4] = Remembered(np.zeros(1, np.float32), 1.0, None)
    with pytest.raises(RuntimeError, match="memory"):
        recall(CONFIG, TrackOptions(), found, 5, 100, False)


@given(st.lists(st.integers(0, 40), unique=True, min_size=1), st.integers(0, 40), st.integers(2, 6))
def test_the_closest_prompted_frames(frames: list[int], frame: int, most: int) -> None:
    chosen = closest({each: seen(each) for each in frames}, frame, most)
    assert len(chosen) == min(most, len(frames))
    earlier, later = [each for each in frames if each < frame], [each for each in frames if each >= frame]
    assert not earlier or max(earlier) in chosen
    assert not later or min(later) in chosen


@given(st.lists(st.floats(width=32, min_value=-(2.0**100), max_value=2.0**100), min_size=1))
def test_bf16_is_the_nearest(values: list[float]) -> None:
    given_values = np.array(values, np.float32)
    rounded = from_bf16(to_bf16(given_values))
    assert np.all(np.abs(rounded - given_values) <= np.abs(given_values) * 2.0**-8 + 1e-38)
    np.testing.assert_array_equal(to_bf16(rounded), to_bf16(given_values))


@pytest.mark.parametrize(
    "wrong",
    [{"fill_hole_area": -1}, {"memory_temporal_stride_for_eval": 0}, {"max_cond_frames_in_attn": 1}],
)
def test_options_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrackOptions(**wrong)  # type: ignore[arg-type]
