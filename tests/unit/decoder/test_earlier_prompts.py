"""The rule by which a request finds the earlier one that it refines."""

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from maskwire_decoder.prompts.earlier_prompts import find_earlier, name_prompts
from maskwire_decoder.prompts.parsing import Prompt

Clicks = Sequence[tuple[int, int, int]]


def prompt(clicks: Clicks = (), box: Sequence[int] | None = None) -> Prompt:
    return Prompt(
        "",
        np.array([click[:2] for click in clicks], np.float32).reshape(-1, 2),
        np.array([click[2] for click in clicks], np.int64),
        None if box is None else np.array(box, np.float32),
        None,
    )


A, B, C = (1, 1, 1), (2, 2, 1), (3, 3, 0)


def test_the_request_with_one_click_less_is_preferred() -> None:
    names = [name_prompts([prompt(clicks)]) for clicks in ([A], [A, B], [])]
    for order in itertools.permutations(names):
        found = find_earlier(order, [prompt([A, B, C])])
        assert found is not None
        assert (found.name, found.places) == (names[1], (0,))


def test_without_it_the_one_with_the_most_clicks_is_taken_and_of_equals_the_latest() -> None:
    later = [prompt([A, B, C, (4, 4, 1)])]
    one, two, other = (name_prompts([prompt(clicks)]) for clicks in ([A], [A, B], [B, C]))
    for names, expected in (([one, two], two), ([other, one, two], other), ([two, other], two)):
        found = find_earlier(names, later)
        assert found is not None
        assert found.name == expected


def test_another_box_another_label_and_the_same_request_are_not_earlier() -> None:
    later = [prompt([A, B], (0, 0, 9, 9))]
    for earlier in (
        prompt([A]),  # has no box
        prompt([A], (0, 0, 8, 9)),
        prompt([(1, 1, 0)], (0, 0, 9, 9)),
        prompt([A, A], (0, 0, 9, 9)),  # the same click twice
        prompt([A, B], (0, 0, 9, 9)),
    ):
        assert find_earlier([name_prompts([earlier])], later) is None
    assert find_earlier([name_prompts([prompt([B], (0, 0, 9, 9))])], later) is not None


def test_the_order_of_clicks_does_not_matter() -> None:
    assert name_prompts([prompt([A, B])]) == name_prompts([prompt([B, A])])


CLICKS = st.lists(st.tuples(st.integers(0, 2), st.just(0), st.integers(0, 1)), max_size=3)
PROMPTS = st.lists(CLICKS.map(prompt), min_size=1, max_size=4)


@given(PROMPTS, PROMPTS)
@settings(max_examples=300, deadline=None)
def test_each_prompt_is_refined_by_one_of_its_own_if_that_is_possible(
    earlier: list[Prompt], later: list[Prompt]
) -> None:
    """Against trying all ways to place the earlier prompts."""

    def clicks(each: Prompt) -> list[tuple[float, ...]]:
        return sorted((*xy, label) for xy, label in zip(each.points.tolist(), each.labels.tolist(), strict=True))

    def fits(small: Prompt, large: Prompt) -> bool:
        rest = clicks(large)
        for click in clicks(small):
            if click not in rest:
                return False
            rest.remove(click)
        return True

    ways = [
        places
        for places in itertools.permutations(range(len(later)), len(earlier))
        if all(fits(small, later[place]) for small, place in zip(earlier, places, strict=True))
    ]
    same = (len(earlier), sum(map(len, map(clicks, earlier)))) == (len(later), sum(map(len, map(clicks, later))))
    found = find_earlier([name_prompts(earlier)], later)
    assert (found is not None) == (bool(ways) and not same)
    if found is not None:
        assert found.places in ways


def test_many_prompts_of_many_points_are_compared_quickly() -> None:
    """128 of 256 points each, of which any earlier one fits any later one. This takes 5 times as long as naming them;
    it took 50 times as long when points were counted for each pair.
    """
    common = [(n, n, 1) for n in range(253)]
    earlier = [prompt([*common[n:], (500, n, 0)]) for n in range(128)]
    later = [prompt([*common, *((500, m, 0) for m in (n, n + 1, n + 2))]) for n in range(128)]

    def seconds(work: Callable[[], object]) -> float:
        started = time.thread_time()
        assert work() is not None
        return time.thread_time() - started

    name = name_prompts(earlier)
    naming = min(seconds(lambda: name_prompts(earlier)) for _ in range(3))
    finding = min(seconds(lambda: find_earlier([name], later)) for _ in range(3))
    assert finding < 20 * naming
