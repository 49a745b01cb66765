"""Moves coordinates that leave an image to its edge; shared by /sam2 and the adapters for labelling tools."""


def clip_to_image(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    """Returns the position within the image that is closest to (x, y).

    Args:
        x: In pixels.
        y: In pixels.
        width: Of the image, in pixels. The edge itself, x = width, belongs to the image.
        height: Of the image, in pixels.
    """
    return min(max(x, 0), width), min(max(y, 0), height)
