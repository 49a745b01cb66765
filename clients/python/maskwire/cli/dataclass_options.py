"""Typer commands that take their options as one dataclass."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def make_command(options: type, runs: str) -> Callable[..., None]:
    """Makes a command that takes its options as one dataclass, so that Typer sees an option for each field.

    Args:
        options: Dataclass whose docstring is the help text, and whose fields are annotated for Typer. Fields that are
            dataclasses themselves are groups, and are replaced by their fields.
        runs: Name of the function that is called with the options, "module:function" in this package. The module is
            imported when the command runs.
    """

    def command(**values: Any) -> None:
        module, _, function = runs.partition(":")
        getattr(importlib.import_module(f"maskwire.cli.{module}"), function)(_from_values(options, values))

    command.__doc__ = options.__doc__
    command.__signature__ = inspect.Signature(_parameters(options))  # type: ignore[attr-defined]
    return command


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
