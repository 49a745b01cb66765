"""Arguments of the public functions: unknown ones are refused with a suggestion, and sam2's names are understood."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from maskwire.errors import InvalidRequest, UnknownArgument
from maskwire.suggest import no_such

C = TypeVar("C", bound=type)
T = TypeVar("T")

_REMEDIES = {
    "boxes": "segment_objects(image, boxes=...) takes several boxes",
    "output_mode": "the masks' annotation(output_mode=...) chooses the form",
    "input_point": "it is called points (or point_coords)",
    "input_label": "it is called labels (or point_labels)",
    "input_box": "it is called box",
}
"""What people reach for whose closest name is not what they want."""


def checked(cls: C) -> C:
    """Makes a class's constructor and public methods refuse arguments that they do not have.

    Python refuses them itself, but with words that do not suggest the right name, and with an error that is no
    `MaskwireError`.
    """
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, _checking(member, cls.__name__ if name == "__init__" else name))
    return cls


def _checking(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return function
    known = [each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY][1:]  # without self

    def check(given: Iterable[str]) -> None:
        for argument in given:
            if argument not in known:
                remedy = _REMEDIES.get(argument)
                words = f"no argument {argument!r}; {remedy}" if remedy else no_such("argument", argument, known)
                raise UnknownArgument(f"{name}() has {words}", "NO_SUCH_ARGUMENT", argument)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            check(kwargs)
            return await function(*args, **kwargs)

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        check(kwargs)
        return function(*args, **kwargs)

    return called


def one_of(name: str, value: T | None, other_name: str, other: T | None) -> T | None:
    """The value of an argument that has two names.

    Raises:
        InvalidRequest: Both are given.
    """
    if value is not None and other is not None:
        raise InvalidRequest(
            f"{name} and {other_name} are two names of one argument; give one of them", "TWO_NAMES", other_name
        )
    return value if other is None else other


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Refuses a word that is none of the choices.

    Raises:
        InvalidRequest: It is not.
    """
    if value not in choices:
        raise InvalidRequest(no_such(name, str(value), choices), f"BAD_{name.upper()}", name)
