"""Checks the arguments of public functions: unknown ones are refused with a suggestion."""

import functools
import inspect
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

import numpy as np

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
"""Remedies for common mistakes where the most similar name is not the right one."""


def checked(cls: C) -> C:
    """Decorates a class so that its constructor and public methods raise `UnknownArgument` for unknown arguments.

    Python's own error neither suggests the right name nor is a `MaskwireError`. Keyword arguments that a method takes
    as `**name: Unpack[SomeTypedDict]` are checked as well, and its signature and documentation then list their names.
    """
    for name, member in list(vars(cls).items()):
        if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
            setattr(cls, name, _checking(member, cls.__name__ if name == "__init__" else name))
    return cls


def _checking(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    signature, documentation = inspect.signature(function), function.__doc__ or ""
    parameters = list(signature.parameters.values())
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        unpacked = parameters.pop()
        (arguments,) = get_args(unpacked.annotation)
        documentation = _with_keys(documentation, unpacked.name, vars(sys.modules[arguments.__module__]))
        for key, kind in get_type_hints(arguments).items():
            parameters.append(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=kind))
    known = [each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY][1:]  # without self

    def check(given: Iterable[str]) -> None:
        for argument in given:
            if argument not in known:
                remedy = _REMEDIES.get(argument)
                words = f"no argument {argument!r}; {remedy}" if remedy else no_such("argument", argument, known)
                raise UnknownArgument(f"{name}() has {words}", "NO_SUCH_ARGUMENT", argument)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def checking(*args: Any, **kwargs: Any) -> Any:
            check(kwargs)
            return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def checking(*args: Any, **kwargs: Any) -> Any:
            check(kwargs)
            return function(*args, **kwargs)

    checking.__doc__ = documentation
    checking.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return checking


def _with_keys(documentation: str, name: str, known: Mapping[str, Any]) -> str:
    """Replaces the line about `**name` in a docstring by the attributes of the TypedDicts that it names."""
    for line in documentation.splitlines():
        if line.lstrip().startswith(f"**{name}:"):
            documented = (inspect.cleandoc(known[each].__doc__) for each in re.findall(r"`(\w+)`", line))
            attributes = "\n".join(textwrap.dedent(each.partition("Attributes:\n")[2]) for each in documented)
            indentation = line[: -len(line.lstrip())]
            documentation = documentation.replace(line, textwrap.indent(attributes, indentation))
    return documentation


def one_of(name: str, value: T | None, other_name: str, other: T | None) -> T | None:
    """Returns the value of an argument that has two names.

    Raises:
        InvalidRequest: TWO_NAMES: values were given under both names.
    """
    if value is not None and other is not None:
        raise InvalidRequest(
            f"{name} and {other_name} are two names of one argument; give one of them", "TWO_NAMES", other_name
        )
    return value if other is None else other


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Checks that an argument is one of several words.

    Raises:
        InvalidRequest: BAD_NAME, where NAME is the argument's name.
    """
    if value not in choices:
        raise InvalidRequest(no_such(name, str(value), choices), f"BAD_{name.upper()}", name)


def is_finite(value: Any) -> bool:
    """Whether an argument is a number, and neither NaN nor infinite."""
    return isinstance(value, int | float | np.number) and math.isfinite(value)
