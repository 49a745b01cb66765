"""Copies and pickles of what came back."""

import copy
from functools import cached_property
from typing import Any, Self

_LEFT_BEHIND = ("_fetch", "_source")
"""Ways back to a client, and its pictures: what is pickled does without."""


class Kept:
    """Can be pickled without what belongs to a client, and copied with it."""

    def __getstate__(self) -> dict[str, Any]:
        made_again = {name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)}
        state = {name: value for name, value in self.__dict__.items() if name not in made_again}
        return state | {name: None for name in _LEFT_BEHIND if name in state}

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        for name, value in self.__dict__.items():
            other.__dict__[name] = value if name in _LEFT_BEHIND else copy.deepcopy(value, memo)
        return other
