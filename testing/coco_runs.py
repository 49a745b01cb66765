"""Run lengths as COCO writes them, also such as pycocotools never would."""


def written(number: int) -> str:
    """Returns a number as COCO writes it: five bits a character, the lowest first."""
    text = ""
    while True:
        bits, number = number & 0x1F, number >> 5
        is_last = number == (-1 if bits & 0x10 else 0)
        text += chr(48 + bits + (0 if is_last else 0x20))
        if is_last:
            return text


def wrapping(pixels: int) -> str:
    """Returns run lengths whose sum, modulo 2 ** 64, is so many pixels, in less than a million characters."""
    steps, step = 1 << 15, 1 << 33  # up and down again, twice: 2 * steps ** 2 * step = 2 ** 64
    return "000" + 2 * steps * written(step) + 2 * steps * written(-step) + written(pixels)
