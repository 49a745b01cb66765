"""Lets a server run where there are no files: what a value of the store may name is looked for there."""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

log = logging.getLogger(__name__)

AnyModel = TypeVar("AnyModel", bound=BaseModel)


@contextlib.contextmanager
def in_empty_folder() -> Iterator[None]:
    """Makes an empty folder the working directory while the body runs. Where none can be made, says so and goes on."""
    before = os.getcwd()
    try:
        folder = tempfile.mkdtemp(prefix="maskwire-")
    except OSError as error:
        log.warning("no empty folder to run in (%s); set TMPDIR to one that can be written", error)
        yield
        return
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def with_absolute_paths(settings: AnyModel) -> AnyModel:
    """Returns settings whose relative paths mean the same in another working directory. A text is taken for a path if
    there is such a file."""
    changed: dict[str, Path | str] = {}
    for name, value in settings:
        if isinstance(value, Path):
            changed[name] = value.expanduser().absolute()
        elif isinstance(value, str) and value and os.path.sep != value[0] and os.path.isfile(value):
            changed[name] = os.path.abspath(value)
    return settings.model_copy(update=changed)
