"""Results of prompts: masks, and in which forms they can be had."""

import base64
import html
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire import exports, overlay
from maskwire.answered_size import check_size
from maskwire.arguments import checked
from maskwire.datasets.coco import coco_annotation
from maskwire.datasets.labelme import LabelmeShapes, labelme, shapes_of
from maskwire.datasets.yolo import yolo_line
from maskwire.embedded_image import milliseconds, place_of
from maskwire.errors import OutputMissing, bad_answer
from maskwire.mask import Mask
from maskwire.output_options import Format
from maskwire.pickling import Picklable
from maskwire.sources import ImageLike, Source
from maskwire.v1 import decoder_pb2, types_pb2

if TYPE_CHECKING:
    import supervision

_NOTEBOOK_PX = 800  # longer side of the picture that notebooks show


@checked
class Result(Picklable):
    """The masks of one prompt. Its properties mask, score, rle and so on are those of the best candidate.

    Results can be pickled and copied; a pickled one holds the forms of mask that were requested or accessed, and not
    the picture. Results are equal if their images, prompts and candidates are equal.

    Attributes:
        candidates: The best mask, or all masks in the model's order.
        image_id: Name of the image.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        model: Name of the model.
        content_key: Identity of the embedding that was used.
        object_score: Logit of the presence of an object; above 0 means that there is one.
        prompt_id: Id that the prompt was given; in a session, the name of the object.
        cached: Whether the embedding was available, so that this call encoded nothing.
        refined: Whether saved logits were refined.
        is_preview: Whether this is the preview of a click, made by `hover` of a session.
        region: The part of the image that the model saw, as x_min, y_min, x_max, y_max in pixels; None for all of it.
            `logits` are the region's; all else is of the whole image.
        timings: Duration of each stage of the whole request in milliseconds.
    """

    def __init__(
        self,
        message: types_pb2.PromptResult,
        *,
        response: decoder_pb2.SegmentResponse,
        prompt: types_pb2.Prompt,
        forms: Iterable[Format],
        cached: bool,
        source: Source | None,
        fetch: Callable[[Format], Sequence[types_pb2.Mask]] | None,
        known_size: tuple[int, int] | None,
        is_preview: bool = False,
    ) -> None:
        if not message.masks:
            raise bad_answer("a prompt has no mask")
        image = response.image
        self.image_id = image.image_id
        self.width, self.height = check_size(image.width_px, image.height_px, known_size)
        self.model = image.model
        self.content_key = image.content_key
        self.region = place_of(image)
        self.object_score = message.object_score
        self.prompt_id = message.prompt_id
        self.cached = cached
        self.refined = message.refined
        self.is_preview = is_preview
        self.timings = milliseconds(response.timings)
        self._prompt = prompt
        self._source = source

        def fetch_of(index: int) -> Callable[[Format], types_pb2.Mask] | None:
            return (lambda form: fetch(form)[index]) if fetch is not None else None

        shape = (self.height, self.width)
        self.candidates = [Mask(mask, shape, forms, fetch_of(index)) for index, mask in enumerate(message.masks)]

    def __repr__(self) -> str:
        several = f", best of {len(self.candidates)}" if len(self.candidates) > 1 else ""
        preview = ", preview" if self.is_preview else ""
        return (
            f"<Result on {self.image_id!r}, {self.width}x{self.height}, {self.model}: {self.best._summary()}"
            f"{several}{preview}>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return (self.content_key, self._prompt, self.candidates) == (
            other.content_key,
            other._prompt,
            other.candidates,
        )

    def __hash__(self) -> int:
        return hash((self.content_key, self.prompt_id, self.score))

    def _repr_png_(self) -> bytes:
        """Draws the mask for notebooks, over the picture if the client has it."""
        image = self.overlay() if self._source is not None else Image.fromarray(self.mask)
        image.thumbnail((_NOTEBOOK_PX, _NOTEBOOK_PX))
        return exports.png_bytes(image)

    def _repr_html_(self) -> str:
        """Shows a line of text and the picture of `_repr_png_` in notebooks."""
        png = base64.b64encode(self._repr_png_()).decode()
        return f'<div>{html.escape(repr(self))}</div><img alt="" src="data:image/png;base64,{png}">'

    @cached_property
    def best(self) -> Mask:
        """The candidate with the highest score."""
        return max(self.candidates, key=lambda mask: mask.score)

    @property
    def score(self) -> float:
        """IoU of the mask with the object, as predicted by the model."""
        return self.best.score

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask at the image's size, HxW."""
        return self.best.array

    @property
    def area(self) -> int:
        """Number of pixels inside the mask."""
        return self.best.area

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box as (x_min, y_min, x_max, y_max) in pixels, such that mask[y_min:y_max, x_min:x_max] contains the
        mask; all 0 if the mask is empty."""
        return self.best.box

    @property
    def rle(self) -> dict[str, Any]:
        """COCO RLE: {"size": [height, width], "counts": str}."""
        return self.best.rle

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits at the model's resolution, SxS; pass them as `mask` to refine the mask."""
        return self.best.logits

    def polygons(self, simplify_px: float = 0) -> list[NDArray[np.int32]]:
        """Returns the outer contours, through the centres of border pixels: Nx2 x, y in pixels, with at least three
        vertices and a positive area each. Holes are filled; `to_coco(polygons=True)` covers the mask exactly.

        Args:
            simplify_px: Largest distance of removed vertices from the simplified polygon, in pixels; 0 keeps all.
        """
        return self.best.polygons(simplify_px)

    def to_coco(
        self,
        annotation_id: int = 1,
        image_id: int | str = 1,
        category_id: int = 1,
        *,
        polygons: bool = False,
        uncompressed: bool = False,
    ) -> dict[str, Any]:
        """Makes an annotation of a COCO data set, with area, box and score.

        Args:
            annotation_id: Id of the annotation.
            image_id: Id of the image in the data set.
            category_id: Id of the category.
            polygons: Use polygons instead of RLE; their union, as filled by pycocotools, is exactly the mask.
            uncompressed: Use RLE whose counts are a list, and "iscrowd" 1: every supervision from 0.25 reads that, and
                the default only from 0.30. Scores of pycocotools ignore crowds.
        """
        return coco_annotation(self.best, annotation_id, image_id, category_id, polygons, uncompressed)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the mask to a file; `save_overlay` draws it over the picture.

        Args:
            path: Path to the file, whose extension chooses the format. .png, .bmp, .tif and other lossless pictures:
                grey, 255 inside. .json: COCO RLE as {"size": [height, width], "counts": str}. .npy: HxW bool. .npz:
                `mask`, HxW bool, and `score`.

        Raises:
            InvalidRequest: The extension is none of these, or the file cannot be written.
        """
        exports.save_mask(self.best, path)

    def to_labelme(
        self,
        label: str,
        file_name: str,
        *,
        simplify_px: float = 1,
        group_id: int | None = None,
        shapes: LabelmeShapes = "auto",
    ) -> dict[str, Any]:
        """Makes the content of a labelme file.

        Args:
            label: Label of the object.
            file_name: Path to the picture, relative to the labelme file.
            simplify_px: See `polygons`.
            group_id: Number that groups the shapes of one object.
            shapes: "polygons", which fill holes; "mask", which labelme reads from 5.4 on; or "auto": polygons, unless
                holes have more than 1 % of the object's pixels.
        """
        made = shapes_of(self.mask, lambda: self.polygons(simplify_px), label, group_id, simplify_px, shapes)
        return labelme(made, file_name, self.width, self.height)

    def to_yolo(self, category: int = 0, *, simplify_px: float = 1) -> str:
        """Makes a line of a YOLO segmentation file; returns an empty string if the mask has no area.

        Args:
            category: Number of the class, from 0.
            simplify_px: See `polygons`.
        """
        return yolo_line(self.best.contours, category, self.width, self.height, simplify_px)

    def to_supervision(self) -> "supervision.Detections":
        """Converts all candidates to Detections of Roboflow's supervision (pip install 'maskwire[supervision]').

        Raises:
            OutputMissing: supervision is not installed.
        """
        return exports.detections(self.candidates)

    def crop(self, image: ImageLike | None = None, *, margin_px: int = 0) -> Image.Image:
        """Crops the picture to the bounding box of the mask.

        Args:
            image: The picture; only needed if this client has not embedded it.
            margin_px: Pixels to add on each side.

        Raises:
            OutputMissing: The client does not have the picture, or the mask is empty.
        """
        if not self.area:
            raise OutputMissing("the mask is empty, so there is nothing to crop to", "EMPTY_MASK")
        return exports.crop(self._picture(image), self.mask, margin_px)

    def cutout(self, image: ImageLike | None = None) -> Image.Image:
        """Makes everything outside the mask transparent, and returns the picture as RGBA.

        Args:
            image: The picture; only needed if this client has not embedded it.

        Raises:
            OutputMissing: The client does not have the picture.
        """
        return exports.cutout(self._picture(image), self.mask)

    def overlay(self, image: ImageLike | None = None, *, mask: Mask | None = None) -> Image.Image:
        """Draws the mask and the prompt over the picture.

        Args:
            image: The picture; only needed if this client has not embedded it.
            mask: The candidate to draw; None for the best one.

        Raises:
            OutputMissing: The client does not have the picture.
        """
        return overlay.draw(self._picture(image), (mask or self.best).array, self._prompt)

    def save_overlay(self, path: str | PathLike[str], image: ImageLike | None = None) -> None:
        """Writes `overlay` to a file.

        Args:
            path: Path to the file, whose extension chooses the format, such as .png or .jpg.
            image: The picture; only needed if this client has not embedded it.

        Raises:
            InvalidRequest: The extension is not that of a picture format, or the file cannot be written.
            OutputMissing: The client does not have the picture.
        """
        exports.save_picture(self.overlay(image), path)

    def _picture(self, image: ImageLike | None) -> Image.Image:
        source = Source(image) if image is not None else self._source
        if source is None:
            raise OutputMissing(
                f"this client has not seen the picture of {self.image_id!r}; pass it as image=...", "OUTPUT_MISSING"
            )
        return source.picture()
