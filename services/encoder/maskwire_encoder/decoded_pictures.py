"""The pictures of which regions were cut lately, decoded, so that the next region need not read and decode the file."""

import threading
from dataclasses import replace

import numpy as np
from maskwire.pictures import Picture
from maskwire_core.masks.geometry import Rectangle
from maskwire_core.tenancy.tenant_cache import TenantCache

_IDLE_S = 30


class DecodedPictures:
    """Keeps pictures up to a number of bytes, each until it has not been used for half a minute. Safe to use from many
    threads.

    They are copies of kept files: before one is used, somebody must have looked whether the file is still there.

    Args:
        max_bytes: Memory for the pixels, which tenants share; 0: none is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._kept: TenantCache[tuple[str, str], Picture] = TenantCache(
            max_bytes, lambda _, picture: picture.pixels.nbytes
        )
        self._lock = threading.Lock()  # of pictures that are copied or read: none leaves, and no two come into one room

    @property
    def nbytes(self) -> int:
        """Memory in use."""
        return self._kept.nbytes

    def __contains__(self, image: tuple[str, str]) -> bool:
        """Whether the picture of an image is here, given its namespace and content key."""
        return image in self._kept

    def cut(self, image: tuple[str, str], part: Rectangle) -> Picture | None:
        """Copies a part of the picture of an image; None if that is not here any more."""
        with self._lock:
            picture = self._kept.get(image)
            if picture is None:
                return None
            x, y, width, height = part
            return replace(picture, pixels=picture.pixels[y : y + height, x : x + width].copy())

    def keep(self, image: tuple[str, str], picture: Picture) -> None:
        """Keeps a copy of the picture of an image, unless it has no room."""
        with self._lock:
            if image not in self._kept and self._kept.make_room(image[0], picture.pixels.nbytes):
                self._kept.put(image, replace(picture, pixels=np.array(picture.pixels, order="C")))

    def drop(self, image: tuple[str, str]) -> None:
        """Forgets the picture of an image."""
        self._kept.drop({image})

    async def drop_idle(self) -> None:
        """Forgets what was not used lately."""
        self._kept.drop_idle(_IDLE_S)
