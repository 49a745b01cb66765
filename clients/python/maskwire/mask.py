"""A mask in several forms."""

import io
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire import exports, rle
from maskwire.arguments import checked
from maskwire.errors import MaskwireError, OutputMissing, bad_answer
from maskwire.outlines import exact_polygons
from maskwire.output_options import Format
from maskwire.pickling import Picklable
from maskwire.v1 import types_pb2

_PIXEL_FORMS = {"rle", "png", "packed_bits"}
_DTYPES = {types_pb2.DATA_TYPE_FP16: "<f2", types_pb2.DATA_TYPE_FP32: "<f4"}


@checked
class Mask(Picklable):
    """One candidate mask. Forms that were not requested are fetched on first access if a blocking client made the mask.

    Masks can be pickled; a pickled one holds the forms that were requested or accessed, and cannot fetch others. Masks
    are equal if their scores and their pixels, or else their logits, are equal. Reading a form that a server sent
    damaged raises MaskwireError: BAD_ANSWER.

    Attributes:
        score: IoU with the object, as predicted by the model.
    """

    def __init__(
        self,
        message: types_pb2.Mask,
        shape: tuple[int, int],
        forms: Iterable[Format],
        fetch: Callable[[Format], types_pb2.Mask] | None,
    ) -> None:
        self._message = message
        self._shape = shape
        self._forms = set(forms)
        self._fetch = fetch
        self.score = message.score

    def __repr__(self) -> str:
        height, width = self._shape
        return f"<Mask {width}x{height}, {self._summary()}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        if (self.score, self._shape) != (other.score, other._shape):
            return False
        if self._forms & _PIXEL_FORMS and other._forms & _PIXEL_FORMS:
            return bool(np.array_equal(self.array, other.array))
        return "logits" in self._forms & other._forms and bool(np.array_equal(self.logits, other.logits))

    def __hash__(self) -> int:
        return hash((self.score, self._shape))

    def _summary(self) -> str:
        inside = f", {self.area} px inside" if self._forms & _PIXEL_FORMS else ""
        return f"score {self.score:.3f}{inside}"

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        return int(np.count_nonzero(self.array))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box as (x_min, y_min, x_max, y_max) in pixels, such that array[y_min:y_max, x_min:x_max] contains
        the mask; all 0 if the mask is empty."""
        return exports.bounding_box(self.array)

    def _with(self, form: Format) -> types_pb2.Mask:
        if form not in self._forms:
            if self._fetch is None:
                raise OutputMissing(
                    f"this result holds no {form} and cannot fetch it, because it was pickled, or comes from a session "
                    f"or an AsyncClient; pass outputs=({form!r}, ...) to the call that makes it",
                    "OUTPUT_MISSING",
                )
            self._message.MergeFrom(self._fetch(form))
            self._forms.add(form)
        return self._message

    @cached_property
    def rle(self) -> dict[str, Any]:
        """COCO RLE as pycocotools accepts it: {"size": [height, width], "counts": str}."""
        sent = self._with("rle").rle
        if tuple(sent.size) != self._shape or not rle.are_of_size(sent.counts, *self._shape):
            raise bad_answer("a mask is no run lengths of the image's size")
        return {"size": list(sent.size), "counts": sent.counts}

    @cached_property
    def array(self) -> NDArray[np.bool_]:
        """The mask at the image's size, HxW."""
        if "rle" not in self._forms and "packed_bits" in self._forms:
            return _unpacked(self._message.packed_bits, self._shape)
        if "rle" not in self._forms and "png" in self._forms:
            return _of_png(self._message.png, self._shape)
        inside = rle.pixels(self.rle["counts"], *self._shape)
        assert inside is not None
        return inside

    @cached_property
    def png(self) -> bytes:
        """The mask as a grey PNG of the image's size: 255 inside, 0 outside."""
        return self._with("png").png

    @cached_property
    def contours(self) -> list[tuple[NDArray[np.int32], bool]]:
        """Contours as (Nx2 x, y in pixels, is_hole); a hole follows the contour that surrounds it."""
        polygons = self._with("polygons").polygons
        return [(_vertices(polygon, self._shape), polygon.is_hole) for polygon in polygons]

    def polygons(self, simplify_px: float = 0) -> list[NDArray[np.int32]]:
        """Returns the outer contours, through the centres of border pixels. Holes are filled; `contours` has them, and
        `coco_polygons` covers the mask exactly.

        Every polygon has at least three vertices and a positive area: single pixels and lines one pixel wide, whose
        contours have no area, are outlined along the edges of their pixels.

        Args:
            simplify_px: Largest distance of removed vertices from the simplified polygon, in pixels; 0 keeps all.

        Returns:
            The vertices of each polygon, Nx2 x, y in pixels.

        Raises:
            InvalidRequest: `simplify_px` is negative.
            OutputMissing: The result has no polygons and cannot fetch them.
        """
        outer = [ring for contour, is_hole in self.contours if not is_hole for ring in exports.with_area(contour)]
        return [exports.simplified(polygon, simplify_px) for polygon in outer]

    def coco_polygons(self) -> list[NDArray[np.float64]]:
        """Returns polygons along the edges of pixels whose union, as filled by pycocotools, is exactly the mask. Each
        4-connected component is a polygon, with a cut to each hole.

        Returns:
            The vertices of each polygon, Nx2 x, y in pixels with N at least 4; pixel (x, y) covers x to x + 1.
        """
        return exact_polygons(self.array)

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """Logits at the model's resolution, SxS, clamped to -32..32; pass them as `mask` to refine the mask."""
        logits = self._with("logits").logits
        dtype = np.dtype(_DTYPES.get(logits.data_type, np.void))
        if dtype.kind != "f" or len(logits.data) != logits.height * logits.width * dtype.itemsize:
            raise bad_answer("logits are not of their size")
        return np.frombuffer(logits.data, dtype).reshape(logits.height, logits.width).astype(np.float32)


def _unpacked(packed: bytes, shape: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = shape
    if len(packed) != height * -(-width // 8):
        raise bad_answer("the bits of a mask are not of the image's size")
    rows = np.frombuffer(packed, np.uint8).reshape(height, -1 if height else 0)
    return np.unpackbits(rows, axis=1, count=width).astype(bool)


def _of_png(file: bytes, shape: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        with Image.open(io.BytesIO(file), formats=("PNG",)) as picture:
            if (picture.height, picture.width, picture.mode) != (*shape, "L"):
                raise bad_answer("the PNG of a mask is not grey, or not of the image's size")
            return np.asarray(picture) > 0
    except MaskwireError:
        raise
    except Exception as error:  # Pillow raises all kinds of exceptions for damaged files
        raise bad_answer(f"the PNG of a mask cannot be read: {error}") from error


def _vertices(polygon: types_pb2.Polygon, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Returns the vertices of a polygon, Nx2 x, y in pixels. Those outside the image would make large outlines."""
    sent = np.array(polygon.coordinates_px, np.int32)
    if not len(sent) or len(sent) % 2 or sent.min() < 0 or (sent.reshape(-1, 2) >= shape[::-1]).any():
        raise bad_answer("a polygon is none, or not in the image")
    return sent.reshape(-1, 2)
