"""Durations as people write them."""

import re

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def seconds(text: str) -> float:
    """Returns the seconds of a duration such as "90s", "15m", "12h", "30d" or "2w".

    Raises:
        ValueError: The text is not a duration.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 90s, 15m, 12h, 30d or 2w")
    return float(match[1]) * _UNITS_S[match[2]]
