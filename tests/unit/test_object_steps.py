"""Objects as lists of steps: folding, and digests."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire.v1 import types_pb2 as pb
from maskwire_core.errors import InvalidArgument
from maskwire_core.masks.geometry import ImageSize
from maskwire_decoder.prompts.steps import StepList, parse_steps

BOX: Any = {"x_min_px": 135, "y_min_px": 40, "x_max_px": 500, "y_max_px": 345}


def added(x: float, y: float, label: int = 1, **fields: Any) -> pb.Step:
    return pb.Step(add_point=pb.Point(x_px=x, y_px=y, label=label), **fields)


def folded(*steps: pb.Step) -> StepList:
    return parse_steps(steps, "steps", ImageSize(600, 400), 256)


def test_what_is_fed_back_and_how_many_candidates_there_are() -> None:
    history = folded(
        added(1, 1),  # a lone click has three candidates
        added(2, 2, 0),  # refines
        pb.Step(set_box=BOX),
        pb.Step(set_box=BOX),  # replaces a box
        pb.Step(remove_point=0),
        added(3, 3),
        added(4, 4, refine=False, multimask=True),
        pb.Step(clear={}),
        added(5, 5, refine=True),  # nothing to refine
    )
    assert [step.refine for step in history.steps] == [False, True, True, False, False, True, False, False, False]
    assert [step.multimask for step in history.steps] == [True, *[False] * 5, True, False, True]
    assert not folded(pb.Step(set_box=BOX)).last.multimask
    shapes = [(shape.points.tolist(), shape.box) for _, shape in history.shapes(range(4, 9))]
    assert shapes[0] == ([[2, 2]], (135, 40, 500, 345))
    assert shapes[2][0] == [[2, 2], [3, 3], [4, 4]]
    assert shapes[3:] == [([], None), ([[5, 5]], None)]


def test_a_candidate_is_chosen_where_there_are_some() -> None:
    steps = [added(1, 1, candidate=2), added(2, 2), added(3, 3, multimask=True, candidate=3)]
    assert [step.candidate for step in folded(*steps).steps] == [2, 0, 3]
    assert folded(steps[0]).last.digest != folded(added(1, 1)).last.digest
    for step in (added(2, 2, candidate=1), added(2, 2, multimask=True, candidate=4)):
        with pytest.raises(InvalidArgument, match="candidate is") as refused:
            folded(steps[0], step)
        assert (refused.value.reason, refused.value.field) == ("BAD_CANDIDATE", "steps[1].candidate")


def test_only_steps_since_the_last_one_that_feeds_nothing_back_are_needed() -> None:
    clicks = [added(x, x) for x in range(1, 6)]
    assert list(folded(*clicks).predecessors()) == [3, 2, 1, 0]
    assert list(folded(*clicks, pb.Step(remove_point=1), added(9, 9)).predecessors()) == [5]
    assert list(folded(*clicks, added(9, 9, refine=False)).predecessors()) == []


def test_equal_lists_have_equal_digests_and_others_do_not() -> None:
    first = added(1, 1)
    lists = [
        [first],
        [added(1, 2)],
        [added(1, 1, 0)],
        [added(1, 1, multimask=False)],
        [pb.Step(set_box=BOX)],
        [first, added(2, 2)],
        [first, added(2, 2, refine=False)],
        [added(2, 2), first],
        [first, added(2, 2), pb.Step(remove_point=1)],
    ]
    digests = [folded(*steps).last.digest for steps in lists]
    assert len(set(digests)) == len(digests)
    # What is the default, what came before a clear, and what comes after make no difference.
    assert folded(added(1, 1, multimask=True)).last.digest == digests[0]
    assert folded(pb.Step(add_point=pb.Point(x_px=1, y_px=1))).last.digest == digests[0]
    assert folded(added(7, 7), pb.Step(clear={}), first).last.digest == digests[0]
    assert folded(*lists[5]).steps[0].digest == digests[0]


@given(st.lists(st.sampled_from(["add", "remove", "box", "clear"]), min_size=1, max_size=30), st.randoms())
@settings(max_examples=200, deadline=None)
def test_any_steps_fold_to_what_they_add_up_to_or_say_what_is_wrong(kinds: list[str], random: Any) -> None:
    points: list[list[float]] = []
    box, steps, wrong = None, [], None
    for index, kind in enumerate(kinds):
        if kind == "add":
            points.append([random.randrange(600), random.randrange(400)])
            steps.append(added(*points[-1]))
        elif kind == "remove":
            place = random.randrange(4)
            steps.append(pb.Step(remove_point=place))
            if place >= len(points):
                wrong = f"steps[{index}].remove_point"
                break
            del points[place]
        elif kind == "box":
            box = [0, 0, random.randrange(1, 600), random.randrange(1, 400)]
            steps.append(pb.Step(set_box=dict(zip(BOX, box, strict=True))))
        else:
            points, box = [], None
            steps.append(pb.Step(clear={}))
    if wrong is None and not points and box is None:
        wrong = "steps"
    if wrong is not None:
        with pytest.raises(InvalidArgument) as caught:
            folded(*steps)
        assert caught.value.field == wrong
        return
    history = folded(*steps)
    ((_, shape),) = history.shapes(range(len(steps) - 1, len(steps)))
    assert shape == history.shape
    assert shape.points.tolist() == points
    assert (None if shape.box is None else list(shape.box)) == box
