"""Colours of objects: far apart, and readable on pictures."""

import colorsys

Colour = tuple[int, int, int]

_FIRST: tuple[Colour, ...] = (
    *((38, 132, 255), (255, 138, 36), (34, 197, 120), (236, 72, 153), (250, 204, 21)),
    *((139, 92, 246), (20, 200, 212), (239, 68, 68), (132, 204, 22), (201, 130, 94)),
)
_WHITE: Colour = (255, 255, 255)
_DARK: Colour = (20, 24, 32)
_LIGHT = 0.4  # relative luminance


def object_colour(number: int) -> Colour:
    """Returns the colour of the object with a number, from 0."""
    if number < len(_FIRST):
        return _FIRST[number]
    # Multiples of the golden ratio spread hues evenly, for any number of objects.
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.7, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def outline_colour(colour: Colour) -> Colour:
    """Returns the colour of the outline around an object: a lighter one."""
    red, green, blue = (round(level + (255 - level) * 0.35) for level in colour)
    return red, green, blue


def drawn_colours(objects: int) -> list[Colour]:
    """Returns the colours that drawings of so many objects have beside those of their pictures."""
    colours = [object_colour(number) for number in range(objects)]
    return [_WHITE, _DARK, *colours, *map(outline_colour, colours)]


def text_colour(background: Colour) -> Colour:
    """Returns white, or near black for text on a light colour."""
    red, green, blue = ((level / 255) ** 2.2 for level in background)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return _DARK if luminance > _LIGHT else _WHITE
