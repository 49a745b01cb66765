"""Reads prompts for many images from a JSON Lines or CSV file; docs/reference/command-line.md describes both."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwire.errors import InvalidRequest
from maskwire.prompts import Prompt
from maskwire.suggest import no_such

_FIELDS = ("image", "points", "labels", "box", "id", "class")
_COLUMNS = ("image", "id", "class", "x", "y", "label", "x_min", "y_min", "x_max", "y_max")


@dataclass(frozen=True)
class ObjectPrompt:
    """An object to segment."""

    prompt: Prompt  # points and box that say where the object is
    class_name: str = ""  # name of its class; empty if none was given


def read_prompts(path: Path) -> dict[str, list[ObjectPrompt]]:
    """Reads the prompts of each image, in the order of the file. Paths to images are relative to the file's folder.

    Args:
        path: Path to a .jsonl, .csv or .tsv file; "-" for JSON Lines on standard input.

    Raises:
        InvalidRequest: The file cannot be read, or a line is wrong; the message names the line.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InvalidRequest(f"no such file: {path}", "NO_SUCH_FILE", "--prompts") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"cannot read {path}: {error}", "BAD_PROMPTS", "--prompts") from error
    is_table = path.suffix.lower() in (".csv", ".tsv")
    found: dict[str, list[ObjectPrompt]] = {}
    for place, row in _parse_table(text, path) if is_table else _parse_json_lines(text, path):
        image = row.get("image")
        if not isinstance(image, str) or not image:
            raise _wrong(place, "names no image")
        try:
            prompt = Prompt(
                row.get("points") or [], row.get("labels"), row.get("box"), prompt_id=str(row.get("id", ""))
            )
        except InvalidRequest as error:
            raise _wrong(place, str(error)) from error
        found.setdefault(_resolve(image, path), []).append(ObjectPrompt(prompt, str(row.get("class", ""))))
    if not found:
        raise InvalidRequest(f"{path} has no prompts", "BAD_PROMPTS", "--prompts")
    return found


def _resolve(image: str, path: Path) -> str:
    beside = path.parent / image
    return str(beside) if str(path) != "-" and "://" not in image and beside.exists() else image


def _parse_json_lines(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the place and the fields of each object."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _wrong(place, f"is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise _wrong(place, 'is not an object such as {"image": "photo.jpg", "box": [75, 275, 1725, 850]}')
        _check_names(row, _FIELDS, "field", place)
        yield place, row


def _parse_table(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the same of CSV. Rows with the same image and id are one object, and so is a row without an id."""
    rows = csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    _check_names(dict.fromkeys(rows.fieldnames or ()), _COLUMNS, "column", f"{path}, line 1")
    objects: dict[tuple[str | None, str], tuple[str, dict[str, Any]]] = {}
    for row in rows:
        place = f"{path}, line {rows.line_num}"
        if None in row:
            raise _wrong(place, "has more cells than the first line has columns")
        cells = {name: value.strip() for name, value in row.items() if value and value.strip()}
        key = (cells.get("image"), cells.get("id") or f" {rows.line_num}")
        _, fields = objects.setdefault(key, (place, {**cells, "points": [], "labels": []}))
        if "x" in cells or "y" in cells:
            fields["points"].append(_numbers(cells, ("x", "y"), place))
            fields["labels"].append(int(_numbers({"label": "1", **cells}, ("label",), place)[0]))
        if any(name in cells for name in _COLUMNS[6:]):
            fields["box"] = _numbers(cells, _COLUMNS[6:], place)
    yield from objects.values()


def _numbers(cells: Mapping[str, str], names: tuple[str, ...], place: str) -> tuple[float, ...]:
    try:
        return tuple(float(cells[name]) for name in names)
    except KeyError as error:
        raise _wrong(place, f"has no {error.args[0]}; give all of {', '.join(names)}") from error
    except ValueError as error:
        raise _wrong(place, f"has a value that is not a number among {', '.join(names)}: {error}") from error


def _check_names(row: Mapping[Any, Any], known: tuple[str, ...], kind: str, place: str) -> None:
    for name in row:
        if name not in known:
            raise _wrong(place, no_such(kind, str(name), known))


def _wrong(place: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{place}: {what}", "BAD_PROMPTS", "--prompts")
