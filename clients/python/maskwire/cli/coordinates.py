"""Coordinates and other numbers as users type them."""

import typer


def parse_point(text: str) -> tuple[float, ...]:
    """Parses "X,Y".

    Raises:
        typer.BadParameter: It is something else.
    """
    return _numbers(text, 2, "X,Y in pixels, such as 500,375")


def parse_box(text: str) -> tuple[float, ...]:
    """Parses "X0,Y0,X1,Y1" likewise."""
    return _numbers(text, 4, "X0,Y0,X1,Y1 in pixels, such as 75,275,1725,850")


def parse_region(text: str) -> str | tuple[float, ...]:
    """Parses "X0,Y0,X1,Y1" likewise, or "auto"."""
    return text if text == "auto" else _numbers(text, 4, "auto, or X0,Y0,X1,Y1 in whole pixels, such as 75,275,331,531")


def parse_bands(text: str) -> tuple[int, ...]:
    """Parses three bands or one, such as "3,2,1" or "4"."""
    bands = text.split(",")
    if len(bands) not in (1, 3) or not all(band.strip().isdecimal() for band in bands):
        raise typer.BadParameter(f"{text!r} is not R,G,B, or one band, counted from 0, such as 3,2,1")
    return tuple(int(band) for band in bands)


def parse_levels(text: str) -> tuple[float, ...]:
    """Parses "BLACK,WHITE", of which black is lower."""
    return _numbers(text, 2, "BLACK,WHITE, two values of the file, such as 200,3000")


def _numbers(text: str, count: int, form: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise typer.BadParameter(f"{text!r} is not {form}")
    return numbers
