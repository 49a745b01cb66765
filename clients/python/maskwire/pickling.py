"""Pickling and copying of results."""

import copy
from functools import cached_property
from typing import Any, Self

_OF_CLIENT = ("_fetch", "_source")
"""Attributes that refer to a client or to its pictures. They are not pickled."""


class Picklable:
    """Base class of results. A pickled result loses its link to the client; a copied one shares it."""

    def __getstate__(self) -> dict[str, Any]:
        cached = {name for name in self.__dict__ if isinstance(getattr(type(self), name, None), cached_property)}
        state = {name: value for name, value in self.__dict__.items() if name not in cached}
        return state | {name: None for name in _OF_CLIENT if name in state}

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        for name, value in self.__dict__.items():
            other.__dict__[name] = value if name in _OF_CLIENT else copy.deepcopy(value, memo)
        return other
