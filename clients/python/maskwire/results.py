"""What comes back: embedded images, masks and their forms."""

import base64
import html
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from maskwire import exports, overlay
from maskwire.arguments import checked
from maskwire.errors import OutputMissing
from maskwire.outlines import exact_polygons
from maskwire.pickling import Kept
from maskwire.pictures import Stretch
from maskwire.prompts import Format
from maskwire.sources import ImageLike, Source, applied
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2

if TYPE_CHECKING:
    import supervision

_SHOWN_PX = 800  # longer side of what notebooks show
_OF_PIXELS = {"rle", "png", "packed_bits"}
_DTYPES = {types_pb2.DATA_TYPE_FP16: "<f2", types_pb2.DATA_TYPE_FP32: "<f4"}


@dataclass(frozen=True)
class EmbeddedImage:
    """A stored image.

    Attributes:
        image_id: Its name in segment calls.
        width: In pixels, EXIF orientation applied.
        height: Likewise.
        model: Name of the model that embedded it.
        content_key: Identity of the embedding: digest of image bytes, model and preprocessing.
        cached: True when no encode was needed. Always True in answers to `get`.
        stored_bytes: Size of the stored embedding.
        stretch: How the picture's samples were mapped to 8 bits: none, range or percentile.
        expires_at: When it leaves the store, in UTC.
        timings: Milliseconds by stage.
    """

    image_id: str
    width: int
    height: int
    model: str
    content_key: str
    cached: bool
    stored_bytes: int
    expires_at: datetime
    timings: dict[str, float] = field(default_factory=dict, compare=False, repr=False)
    stretch: Stretch = "none"

    @classmethod
    def read(
        cls, info: types_pb2.ImageInfo, cached: bool = True, timings: encoder_pb2.EncodeTimings | None = None
    ) -> "EmbeddedImage":
        return cls(
            image_id=info.image_id,
            width=info.width_px,
            height=info.height_px,
            model=info.model,
            content_key=info.content_key,
            cached=cached,
            stored_bytes=info.stored_bytes,
            expires_at=info.expires_at.ToDatetime(tzinfo=UTC),
            timings=milliseconds(timings) if timings is not None else {},
            stretch=applied(info.stretch),
        )


@checked
class Mask(Kept):
    """One candidate mask, in the forms that were requested; a form that was not is fetched once, by a sync client.

    Masks can be pickled; a form that was not requested or looked at before cannot be fetched afterwards. Masks are
    equal if their scores, and their pixels or logits, are.

    Attributes:
        score: The model's prediction of its IoU.
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
        inside = f", {self.area} px inside" if self._forms & _OF_PIXELS else ""
        return f"<Mask {width}x{height}, score {self.score:.3f}{inside}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        if (self.score, self._shape) != (other.score, other._shape):
            return False
        if self._forms & _OF_PIXELS and other._forms & _OF_PIXELS:
            return bool(np.array_equal(self.array, other.array))
        return "logits" in self._forms & other._forms and bool(np.array_equal(self.logits, other.logits))

    def __hash__(self) -> int:
        return hash((self.score, self._shape))

    @property
    def area(self) -> int:
        """Pixels inside."""
        return int(np.count_nonzero(self.array))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x_min, y_min, x_max, y_max) in pixels, around the mask; all 0 if it is empty. As a slice it holds the mask:
        array[y_min:y_max, x_min:x_max]."""
        return exports.edges(self.array)

    def _with(self, form: Format) -> types_pb2.Mask:
        if form not in self._forms:
            if self._fetch is None:
                raise OutputMissing(
                    f"this result holds no {form}, and cannot fetch it: it was pickled, or is of a session or an "
                    f"AsyncClient; pass outputs=({form!r}, ...) to what made it",
                    "OUTPUT_MISSING",
                )
            self._message.MergeFrom(self._fetch(form))
            self._forms.add(form)
        return self._message

    @cached_property
    def rle(self) -> dict[str, Any]:
        """COCO RLE as pycocotools takes it: {"size": [height, width], "counts": str}."""
        rle = self._with("rle").rle
        return {"size": list(rle.size), "counts": rle.counts}

    @cached_property
    def array(self) -> NDArray[np.bool_]:
        """HxW, of the image's size."""
        if "rle" not in self._forms and "packed_bits" in self._forms:
            packed = np.frombuffer(self._message.packed_bits, np.uint8).reshape(self._shape[0], -1)
            return np.unpackbits(packed, axis=1, count=self._shape[1]).astype(bool)
        if "rle" not in self._forms and "png" in self._forms:
            return np.asarray(Image.open(io.BytesIO(self._message.png))) > 0
        rle = self.rle
        return np.asarray(coco.decode({"size": rle["size"], "counts": rle["counts"].encode()})).astype(bool)

    @cached_property
    def png(self) -> bytes:
        """A grey PNG of the image's size: 255 inside, 0 outside."""
        return self._with("png").png

    @cached_property
    def contours(self) -> list[tuple[NDArray[np.int32], bool]]:
        """Contours as (Nx2 x, y in pixels, is_hole); a hole follows the polygon that it is in."""
        polygons = self._with("polygons").polygons
        return [(np.array(polygon.coordinates_px, np.int32).reshape(-1, 2), polygon.is_hole) for polygon in polygons]

    def polygons(self, simplify_px: float = 0) -> list[NDArray[np.int32]]:
        """Outer contours through the centres of border pixels: filled, their own pixels included, they cover the mask
        and its holes. `contours` has the holes, and `coco_polygons` covers the mask exactly.

        Every polygon has at least three corners and an area. Single pixels and lines one pixel wide have none in this
        sense; theirs are rings along the edges of their pixels.

        Args:
            simplify_px: How far corners may be from the polygon that are left out, in pixels; 0 keeps all.

        Returns:
            Nx2 x, y each, in pixels.

        Raises:
            InvalidRequest: `simplify_px` is negative.
            OutputMissing: The result holds no polygons and cannot fetch them.
        """
        outer = [ring for contour, is_hole in self.contours if not is_hole for ring in exports.with_area(contour)]
        return [exports.simplified(polygon, simplify_px) for polygon in outer]

    def coco_polygons(self) -> list[NDArray[np.float64]]:
        """Polygons whose union is exactly the mask, as pycocotools fills them: along the edges of pixels, one for each
        4-connected part, with holes cut open.

        Returns:
            Nx2 x, y each, in pixels, where pixel (x, y) covers x to x + 1; at least four corners.
        """
        return exact_polygons(self.array)

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """SxS fp32 logits at the model's resolution, clamped to -32..32; a mask prompt for refining."""
        logits = self._with("logits").logits
        values = np.frombuffer(logits.data, _DTYPES[logits.data_type])
        return values.reshape(logits.height, logits.width).astype(np.float32)


@checked
class Result(Kept):
    """The masks of one prompt. Its mask, score, rle, ... are those of its best candidate.

    Results can be pickled and copied; a pickled one holds the forms of mask that were requested or looked at, and not
    the picture. Results are equal if image, prompt and candidates are.

    Attributes:
        candidates: The best mask, or all of them in the model's order.
        image_id: Name of the image.
        width: Of the image, in pixels.
        height: Likewise.
        model: Name of the model.
        content_key: Identity of the embedding that was used.
        object_score: Logit of "there is an object"; above 0 means yes.
        prompt_id: As given in the prompt; in a session, the object's name.
        cached: False when this call had to encode the image first.
        refined: True when saved logits were refined.
        is_preview: True for what a session only hovers over.
        timings: Milliseconds by stage, of the whole request.
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
        is_preview: bool = False,
    ) -> None:
        image = response.image
        self.image_id = image.image_id
        self.width = image.width_px
        self.height = image.height_px
        self.model = image.model
        self.content_key = image.content_key
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
        best = self.best
        inside = f", {best.area} px inside" if best._forms & _OF_PIXELS else ""
        several = f", best of {len(self.candidates)}" if len(self.candidates) > 1 else ""
        preview = ", preview" if self.is_preview else ""
        return (
            f"<Result on {self.image_id!r}, {self.width}x{self.height}, {self.model}: score {self.score:.3f}{inside}"
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
        """What notebooks show: the mask over the picture, if that is known, else the mask."""
        image = self.overlay() if self._source is not None else Image.fromarray(self.mask)
        image.thumbnail((_SHOWN_PX, _SHOWN_PX))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """What notebooks show: the picture of `_repr_png_` under a line of text."""
        png = base64.b64encode(self._repr_png_()).decode()
        return f'<div>{html.escape(repr(self))}</div><img alt="" src="data:image/png;base64,{png}">'

    @cached_property
    def best(self) -> Mask:
        """The candidate with the highest score."""
        return max(self.candidates, key=lambda mask: mask.score)

    @property
    def score(self) -> float:
        """The model's prediction of the mask's IoU."""
        return self.best.score

    @property
    def mask(self) -> NDArray[np.bool_]:
        """HxW bool, of the image's size."""
        return self.best.array

    @property
    def area(self) -> int:
        """Pixels inside of the mask."""
        return self.best.area

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x_min, y_min, x_max, y_max) in pixels, around the mask; all 0 if it is empty. As a slice it holds the mask:
        mask[y_min:y_max, x_min:x_max]."""
        return self.best.box

    @property
    def rle(self) -> dict[str, Any]:
        """COCO RLE: {"size": [height, width], "counts": str}."""
        return self.best.rle

    @property
    def logits(self) -> NDArray[np.float32]:
        """SxS fp32 at the model's resolution: pass it as `mask` to refine."""
        return self.best.logits

    def polygons(self, simplify_px: float = 0) -> list[NDArray[np.int32]]:
        """Outer contours through the centres of border pixels, each Nx2 x, y in pixels with at least three corners and
        an area. Holes are not in them: `to_coco(polygons=True)` covers the mask exactly; see `Mask.polygons`.

        Args:
            simplify_px: How far corners may be from the polygon that are left out, in pixels; 0 keeps all.
        """
        return self.best.polygons(simplify_px)

    def to_coco(
        self, annotation_id: int = 1, image_id: int | str = 1, category_id: int = 1, *, polygons: bool = False
    ) -> dict[str, Any]:
        """An annotation of a COCO data set, with area, box and score.

        Args:
            annotation_id: Number of the annotation.
            image_id: Number or name of the image in the data set.
            category_id: Number of the category.
            polygons: Polygons instead of RLE: pycocotools makes exactly the mask of their union, holes included.
        """
        return exports.coco_annotation(self.best, annotation_id, image_id, category_id, polygons)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the mask to a file; `save_overlay` writes it over the picture.

        Args:
            path: Its ending chooses the format. .png, .bmp, .tif and other pictures without loss: grey, 255 inside.
                .json: COCO RLE as {"size": [height, width], "counts": str}. .npy: HxW bool. .npz: `mask`, HxW bool, and
                `score`.

        Raises:
            InvalidRequest: The ending is none of these, or the file cannot be written.
        """
        exports.save_mask(self.best, path)

    def to_labelme(
        self, label: str, file_name: str, *, simplify_px: float = 1, group_id: int | None = None
    ) -> dict[str, Any]:
        """The content of a labelme file.

        Args:
            label: Of the object.
            file_name: Of the picture, beside the labelme file.
            simplify_px: As in `polygons`.
            group_id: Marks its polygons as one object's.
        """
        return exports.labelme(self.polygons(simplify_px), label, group_id, file_name, self.width, self.height)

    def to_yolo(self, category: int = 0, *, simplify_px: float = 1) -> str:
        """The mask as a line of a YOLO segmentation file; empty if the mask has no outline.

        Args:
            category: Number of its class, from 0.
            simplify_px: As in `polygons`.
        """
        return exports.yolo_line(self.best.contours, category, self.width, self.height, simplify_px)

    def to_supervision(self) -> "supervision.Detections":
        """All candidates as Detections of Roboflow's supervision, which must be installed: maskwire[supervision]."""
        return exports.detections(self.candidates)

    def crop(self, image: ImageLike | None = None, *, margin_px: int = 0) -> Image.Image:
        """The part of the picture around the mask.

        Args:
            image: The picture, where this client has not embedded it itself.
            margin_px: Pixels to add on each side.

        Raises:
            OutputMissing: The client does not have the picture, or the mask is empty.
        """
        if not self.area:
            raise OutputMissing("the mask is empty: nothing is around it", "EMPTY_MASK")
        return exports.crop(self._picture(image), self.mask, margin_px)

    def cutout(self, image: ImageLike | None = None) -> Image.Image:
        """The picture with everything outside of the mask transparent: RGBA, to be saved as PNG."""
        return exports.cutout(self._picture(image), self.mask)

    def overlay(self, image: ImageLike | None = None, *, mask: Mask | None = None) -> Image.Image:
        """The image with mask and prompt drawn over it.

        Args:
            mask: One of the candidates; the best if None.
            image: The picture, where this client has not embedded it itself.

        Raises:
            OutputMissing: The client does not have the picture.
        """
        return overlay.draw(self._picture(image), (mask or self.best).array, self._prompt)

    def save_overlay(self, path: str | PathLike[str], image: ImageLike | None = None) -> None:
        """Writes `overlay` to a file.

        Args:
            path: Its ending chooses the format, such as .png or .jpg.
            image: The picture, where this client has not embedded it itself.

        Raises:
            InvalidRequest: The ending is not that of a picture, or the file cannot be written.
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


def milliseconds(timings: Any) -> dict[str, float]:
    """A timings message as {"decode_ms": 12.3, ...}, without the stages that did not run."""
    return {
        descriptor.name: round(float(value), 3)
        for descriptor, value in timings.ListFields()
        if descriptor.name.endswith("_ms")
    }
