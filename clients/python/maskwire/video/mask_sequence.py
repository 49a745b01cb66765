"""Masks of objects, frame by frame."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from maskwire.errors import InvalidRequest
from maskwire.exports import HasMask

MaskLike = HasMask | NDArray[Any] | Mapping[str, Any]
"""A `Mask`, an array HxW of bool, or COCO RLE."""


class MaskSequence:
    """Masks of objects on the frames of a clip, kept as RLE: a few kilobytes a mask.

    Args:
        width: Width of the frames in pixels.
        height: Likewise.

    Attributes:
        objects: Names of the objects, in the order in which they were added first: their order in files and of colours.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.height = height
        self.objects: list[str] = []
        self._frames: dict[int, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return f"<MaskSequence of {', '.join(self.objects) or 'no objects'} on {len(self._frames)} frames>"

    def __len__(self) -> int:
        """Number of frames that have been looked at, with masks or without."""
        return len(self._frames)

    def __iter__(self) -> Iterator[int]:
        """Yields the indices of these frames, in ascending order."""
        return iter(sorted(self._frames))

    def __contains__(self, frame: object) -> bool:
        return frame in self._frames

    def add(self, frame: int, masks: Mapping[str, MaskLike]) -> None:
        """Sets the masks of a frame; objects that are not named are not there.

        Args:
            frame: Index of the frame, from 0.
            masks: Each object's mask: a `Mask`, an array HxW, or COCO RLE. Empty: it is not to be seen.

        Raises:
            InvalidRequest: BAD_MASK: a mask has another size than the frames.
        """
        rles = {name: self._rle(name, mask) for name, mask in masks.items()}
        self.objects += [name for name in rles if name not in self.objects]
        self._frames[frame] = {name: rle for name, rle in rles.items() if coco.area(rle)}

    def remove(self, name: str) -> None:
        """Forgets an object and its masks."""
        self.objects.remove(name)
        for masks in self._frames.values():
            masks.pop(name, None)

    def rles(self, frame: int) -> dict[str, dict[str, Any]]:
        """Returns the masks of a frame that are not empty as COCO RLE, with counts as str, by object."""
        found = self._frames.get(frame, {})
        return {
            name: {"size": [self.height, self.width], "counts": found[name]["counts"].decode()}
            for name in self.objects
            if name in found
        }

    def arrays(self, frame: int) -> dict[str, NDArray[np.bool_]]:
        """Returns the masks of a frame that are not empty, HxW, by object."""
        found: Any = self._frames.get(frame, {})
        return {name: coco.decode(found[name]).astype(bool) for name in self.objects if name in found}

    def _rle(self, name: str, mask: MaskLike) -> Any:
        given: Any
        if isinstance(mask, Mapping):
            given = mask
        elif isinstance(mask, np.ndarray):
            if mask.ndim != 2:
                raise InvalidRequest(f"the mask of {name!r} has shape {mask.shape}; give HxW", "BAD_MASK", "masks")
            given = coco.encode(np.asfortranarray(mask != 0, np.uint8))
        else:
            given = mask.rle
        if list(given["size"]) != [self.height, self.width]:
            height, width = given["size"]
            raise InvalidRequest(
                f"the mask of {name!r} is for {width}x{height} pixels; the frames have {self.width}x{self.height}",
                "BAD_MASK",
                "masks",
            )
        counts = given["counts"]
        return {"size": [self.height, self.width], "counts": counts.encode() if isinstance(counts, str) else counts}
