"""Finds the earlier request that a later one refines; the rule is that of `load_logits` in decoder.proto."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from maskwire_decoder.prompts.parsing import Prompt


@dataclass(frozen=True)
class _Shape:
    """Box and points of a prompt; points are sorted (x, y, label)."""

    box: tuple[float, ...] | None
    points: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, prompt: Prompt) -> "_Shape":
        labelled = zip(prompt.points.tolist(), prompt.labels.tolist(), strict=True)
        box = None if prompt.box is None else tuple(prompt.box.tolist())
        return cls(box, tuple(sorted((x, y, label) for (x, y), label in labelled)))


class _Points:
    """Sets of points that are compared by numbers, which takes a thirtieth of the time of comparing the points: each
    of many earlier prompts is compared with each of many later ones."""

    def __init__(self) -> None:
        self._numbers: defaultdict[tuple[tuple[float, ...], int], int] = defaultdict(lambda: len(self._numbers))

    def of(self, shape: _Shape) -> frozenset[int]:
        """Returns the numbers of a prompt's points. A point that it has twice is another one the second time."""
        seen: defaultdict[tuple[float, ...], int] = defaultdict(int)
        found = []
        for point in shape.points:
            found.append(self._numbers[point, seen[point]])
            seen[point] += 1
        return frozenset(found)


@dataclass(frozen=True)
class EarlierPrompts:
    """An earlier request."""

    name: bytes  # what its logits are saved under
    places: tuple[int, ...]  # for each of its prompts, the index of the later request's prompt that refines it


def name_prompts(prompts: Sequence[Prompt]) -> bytes:
    """Returns a name for the prompts of a request, from which `find_earlier` reads what they are."""
    return json.dumps([[shape.box, shape.points] for shape in map(_Shape.of, prompts)]).encode()


def find_earlier(names: Sequence[bytes], prompts: Sequence[Prompt]) -> EarlierPrompts | None:
    """Finds the request that the given prompts refine.

    Args:
        names: Names of earlier requests as `name_prompts` gave them, the most recently used first.
        prompts: The prompts of the later request.
    """
    numbers = _Points()
    wanted = [(shape, numbers.of(shape)) for shape in map(_Shape.of, prompts)]
    points = sum(len(shape.points) for shape, _ in wanted)
    best: tuple[tuple[bool, int], EarlierPrompts] | None = None
    for name in names:
        shapes = [_Shape(box and tuple(box), tuple(map(tuple, points))) for box, points in json.loads(name)]
        saved = [(shape, numbers.of(shape)) for shape in shapes]
        count = sum(len(shape.points) for shape in shapes)
        places = _match(saved, wanted)
        if places is None or (count, len(saved)) == (points, len(wanted)):
            continue
        rank = (count == points - 1, count)
        if best is None or rank > best[0]:
            best = (rank, EarlierPrompts(name, places))
    return best and best[1]


def _match(
    saved: Sequence[tuple[_Shape, frozenset[int]]], wanted: Sequence[tuple[_Shape, frozenset[int]]]
) -> tuple[int, ...] | None:
    """Finds a prompt of its own for each saved one, by augmenting paths (Kuhn's algorithm); None if that is
    impossible."""
    closest_first = sorted(range(len(wanted)), key=lambda each: len(wanted[each][1]))
    # A prompt fits another that has its box, and all of its points.
    fitting = [
        [each for each in closest_first if shape.box == wanted[each][0].box and points <= wanted[each][1]]
        for shape, points in saved
    ]
    owner: dict[int, int] = {}

    def place(index: int, tried: set[int]) -> bool:
        for candidate in fitting[index]:
            if candidate in tried:
                continue
            tried.add(candidate)
            if candidate not in owner or place(owner[candidate], tried):
                owner[candidate] = index
                return True
        return False

    if not all(place(index, set()) for index in range(len(saved))):
        return None
    places = {index: candidate for candidate, index in owner.items()}
    return tuple(places[index] for index in range(len(saved)))
