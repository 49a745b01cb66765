"""Held-out pictures with what a model finds on them, to look at while it trains."""

from pathlib import Path

import numpy as np
from maskwire.overlay import draw
from maskwire.v1 import types_pb2
from numpy.typing import NDArray
from PIL import Image

from training.demo.asker import Asker, bounds
from training.demo.clicks import Mask, centre
from training.demo.heldout import Case

_SIDE = 256


def save(asker: Asker, held_out: list[Case], path: Path) -> None:
    """Writes one row for each case: the picture; its first object by a click, by a box, by that click and three
    corrections; what is found without a prompt.
    """
    Image.fromarray(np.concatenate([np.concatenate(_row(asker, case), 1) for case in held_out])).save(path)


def some_of(held_out: list[Case], each: int) -> list[Case]:
    """The first cases of each source."""
    sources = dict.fromkeys(case.source for case in held_out)
    return [case for source in sources for case in [case for case in held_out if case.source == source][:each]]


def _row(asker: Asker, case: Case) -> list[NDArray[np.uint8]]:
    target = case.masks[0]
    asker.look(case.rgb)
    click, *_, corrected = asker.corrected(target, clicks=3)
    x, y = centre(target)
    x1, y1, x2, y2 = bounds(target)
    box = asker.box((x1, y1, x2, y2))
    nothing = asker.nothing()
    clicked = types_pb2.Prompt(points=[types_pb2.Point(x_px=x, y_px=y, label=1)])
    boxed = types_pb2.Prompt(box=types_pb2.Box(x_min_px=x1, y_min_px=y1, x_max_px=x2, y_max_px=y2))
    shown: list[tuple[Mask, types_pb2.Prompt]] = [
        (np.zeros_like(target), types_pb2.Prompt()),
        (click.masks[click.best], clicked),
        (box.masks[0], boxed),
        (corrected.masks[0], clicked),
        (nothing.masks[nothing.best], types_pb2.Prompt()),
    ]
    photo = Image.fromarray(case.rgb)
    return [np.asarray(draw(photo, mask, prompt).resize((_SIDE, _SIDE))) for mask, prompt in shown]
