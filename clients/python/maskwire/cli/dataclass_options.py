"""Typer commands that take their options as one dataclass."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def takes(options: type[T]) -> Callable[[Callable[[T], None]], Callable[..., None]]:
    """Decorates a command that takes its options as one dataclass, so that Typer sees an option for each field.

    Args:
        options: Dataclass whose fields are annotated for Typer. Fields that are dataclasses themselves are groups, and
            are replaced by their fields.
    """

    def decorate(function: Callable[[T], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(_from_values(options, values))

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(_parameters(options))  # type: ignore[attr-defined]
        return command

    return decorate


def _parameters(options: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(options, include_extras=True)
    parameters = []
    for field in fields(options):
        if is_dataclass(hints[field.name]):
            parameters += _parameters(hints[field.name])
            continue
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(field.name, kind, default=default, annotation=hints[field.name]))
    return parameters


def _from_values(options: Any, values: dict[str, Any]) -> Any:
    hints = get_type_hints(options)
    return options(
        **{
            field.name: _from_values(hints[field.name], values)
            if is_dataclass(hints[field.name])
            else values[field.name]
            for field in fields(options)
        }
    )
