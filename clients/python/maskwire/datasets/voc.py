"""Pascal VOC: label images of classes and objects, and XML files with boxes."""

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.errors import InvalidRequest

_MOST = 254  # 0 is the background, 255 "difficult" in VOC


def label_images(
    masks: Sequence[NDArray[np.bool_]], classes: Sequence[int], width: int, height: int
) -> tuple[Image.Image, Image.Image]:
    """Makes the images of SegmentationClass and SegmentationObject, with VOC's palette.

    Where masks overlap, the smaller one is on top. VOC's border of 255 ("void") around objects is not drawn.

    Args:
        masks: Masks of the objects, HxW each.
        classes: Number of each object's class, from 1.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        Pictures whose pixels are the number of the class, and the number of the object, from 1; 0 is the background.

    Raises:
        InvalidRequest: TOO_MANY_MASKS: more than 254 classes or objects, which do not fit into a byte.
    """
    if len(masks) > _MOST or max(classes, default=0) > _MOST:
        raise InvalidRequest(
            f"{len(masks)} objects, classes up to {max(classes, default=0)}: VOC's images have at most {_MOST}; write "
            "COCO, or fewer objects",
            "TOO_MANY_MASKS",
        )
    drawn = np.zeros((2, height, width), np.uint8)
    for index in sorted(range(len(masks)), key=lambda index: -np.count_nonzero(masks[index])):
        drawn[:, masks[index]] = [[classes[index]], [index + 1]]
    of_classes, of_objects = (Image.fromarray(numbers) for numbers in drawn)
    of_classes.putpalette(palette())
    of_objects.putpalette(palette())
    return of_classes, of_objects


def palette() -> list[int]:
    """Returns VOC's 256 colours as r, g, b, r, ...: the three lowest bits of a number are the highest of its colour's
    channels, the next three the next, and so on."""
    numbers = np.arange(256)
    colours = np.zeros((256, 3), int)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> 3 * place + channel & 1) << 7 - place
    return [int(value) for value in colours.ravel()]


def annotation_xml(
    file_name: str, width: int, height: int, labels: Sequence[str], boxes: Sequence[tuple[int, int, int, int]]
) -> bytes:
    """Makes an XML file of Annotations.

    Args:
        file_name: Path to the image.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        labels: Name of each object's class.
        boxes: Box of each object as x_min, y_min, x_max, y_max in pixels, the last two exclusive. VOC counts pixels
            from 1, and its last ones are inside.
    """
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file_name
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "1"
    for label, (x_min, y_min, x_max, y_max) in zip(labels, boxes, strict=True):
        entry = ElementTree.SubElement(root, "object")
        for name, text in (("name", label), ("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            ElementTree.SubElement(entry, name).text = text
        box = ElementTree.SubElement(entry, "bndbox")
        for name, value in (("xmin", x_min + 1), ("ymin", y_min + 1), ("xmax", x_max), ("ymax", y_max)):
            ElementTree.SubElement(box, name).text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode").encode() + b"\n"
