"""Five corrective clicks on the sample photograph, and how a session makes them."""

from typing import Any

from maskwire import Result

LOGITS: Any = {"outputs": ("rle", "logits"), "logits_dtype": "float32"}
"""Arguments of a session whose masks bring exact logits."""

CLICKS = [(260, 130, 1), (300, 330, 0), (400, 150, 1), (180, 120, 1), (90, 90, 0)]
"""x and y in pixels, and the label: 1 inside, 0 outside."""


def click(session: Any, clicked: tuple[int, int, int]) -> Result:
    x, y, label = clicked
    result = session.click(x, y, positive=bool(label))
    assert result is not None
    return result
