"""SAM2ImagePredictor with sam2's arguments, shapes and dtypes, whose masks come from the servers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.arguments import checked
from maskwire.bilinear import enlarge
from maskwire.client import Client
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import InvalidRequest
from maskwire.prompts import Prompt
from maskwire.results import Result
from maskwire.sam2.build_sam import ServedModel, build_sam2_hf
from maskwire.sam2.prompt_batch import in_arguments_words, prompts_of
from maskwire.sources import ImageLike

LOGIT_BOUND = 32.0
"""Low-resolution logits that `SAM2ImagePredictor.predict` returns are clamped to this and its negative."""

_PROMPTS_PER_CALL = 16

Predicted = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Masks (CxHxW), scores (C) and low-resolution logits (CxSxS), each with the number of prompts in front if several."""


class ImageNotSet(InvalidRequest, RuntimeError):
    """No image is set; sam2 raises a RuntimeError then, and so this is one."""


class NotServed(InvalidRequest, NotImplementedError):
    """sam2's predictor has it in its process, and the servers do not send it."""


@checked
class SAM2ImagePredictor:
    """Stands in for sam2's SAM2ImagePredictor: `from sam2.` becomes `from maskwire.sam2.`, and a script goes on.

    Masks equal those of sam2 with the same weights where the server computes and stores in fp32; see
    docs/how-to/existing-scripts.md for what else differs. Like sam2's, a predictor has one image or batch set at a
    time, so it is not to be shared between threads; several predictors may share a client.

    Args:
        sam_model: What `build_sam2` of this package returned, the name of a model, or None for the encoder's default.
        mask_threshold: Logit above which a pixel is inside.
        max_hole_area: Holes of at most this many low-resolution pixels are filled; 0 leaves them.
        max_sprinkle_area: Islands of at most this many low-resolution pixels are removed; 0 leaves them.
        client: The client whose servers answer; None for `Client()`, which the environment configures.

    Raises:
        InvalidRequest: NOT_SERVED: sam_model is a model of torch.
    """

    def __init__(
        self,
        sam_model: ServedModel | str | None = None,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        client: Client | None = None,
    ) -> None:
        if isinstance(sam_model, str) or sam_model is None:
            sam_model = ServedModel(sam_model or "")
        if not isinstance(sam_model, ServedModel):
            raise NotServed(
                f"{type(sam_model).__name__} would run in this process; import build_sam2 from maskwire.sam2.build_sam "
                "as well, or give the name of a model that the server has",
                "NOT_SERVED",
                "sam_model",
            )
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self._areas = math.floor(max_hole_area), math.floor(max_sprinkle_area)
        self._client = client or Client()
        self._images: list[EmbeddedImage] = []
        self._is_batch = False

    @classmethod
    def from_pretrained(cls, model_id: str, **arguments: Any) -> "SAM2ImagePredictor":
        """Makes a predictor of the model of a Hugging Face repository. Nothing is downloaded.

        Args:
            model_id: Name of the repository, such as facebook/sam2.1-hiera-large.
            **arguments: As the constructor and `build_sam2_hf` take them.
        """
        building = ("device", "mode", "hydra_overrides_extra", "apply_postprocessing")
        model = build_sam2_hf(model_id, **{name: arguments.pop(name) for name in building if name in arguments})
        return cls(model, **arguments)

    def set_image(self, image: ImageLike | EmbeddedImage) -> None:
        """Embeds an image, for `predict`.

        Args:
            image: RGB array HxWx3 uint8 or PIL image, as sam2 takes them, or whatever else `Client.embed` takes.

        Raises:
            MaskwireError: The errors of `Client.embed`.
        """
        self.reset_predictor()
        self._images = [self._client.embed(_pixels(image), model=self.model.name)]

    def set_image_batch(self, image_list: Sequence[ImageLike]) -> None:
        """Embeds several images, for `predict_batch`. The server encodes them side by side.

        Args:
            image_list: Images as in `set_image`.

        Raises:
            MaskwireError: The errors of `Client.embed`.
        """
        self.reset_predictor()
        images = [_pixels(image) for image in image_list]
        embedded = {id(image): stored for image, stored in self._client.embed_many(images, model=self.model.name)}
        self._images = [embedded[id(image)] for image in images]
        self._is_batch = True

    def predict(
        self,
        point_coords: Any = None,
        point_labels: Any = None,
        box: Any = None,
        mask_input: Any = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Predicted:
        """Predicts the masks of one prompt, or of B prompts at once. Arrays may be lists or torch tensors, too.

        Args:
            point_coords: Nx2, or BxNx2: x and y of clicks in pixels of the image.
            point_labels: N, or BxN: 1 inside the object, 0 outside. A lone -1 means the most prominent object.
            box: 4, or Bx4: x_min, y_min, x_max, y_max in pixels of the image.
            mask_input: Logits of an earlier prediction, 1xSxS, or Bx1xSxS.
            multimask_output: Whether to return three candidates (C = 3), or the single mask (C = 1).
            return_logits: Whether to return masks as logits of the image's size instead of 0 and 1.
            normalize_coords: Whether coordinates are pixels; False: they are fractions of the width and height.

        Returns:
            masks, CxHxW fp32: 0 and 1, or logits; scores, C fp32, the IoU that the model predicts for each; and
            low-resolution logits, CxSxS fp32, clamped to -32..32. With several prompts BxCxHxW, BxC and BxCxSxS.

        Raises:
            ImageNotSet: NO_IMAGE: no image is set; also a RuntimeError.
            InvalidRequest: A prompt is wrong, and `field` says where; or nothing is prompted (NO_PROMPTS).
            MaskwireError: The errors of `Client.segment_objects`.
        """
        image = self._set("set_image")[-1]
        prompts = prompts_of(image, point_coords, point_labels, box, mask_input, normalize_coords)
        return self._predict(image, prompts, multimask_output, return_logits)

    def predict_batch(
        self,
        point_coords_batch: Sequence[Any] | None = None,
        point_labels_batch: Sequence[Any] | None = None,
        box_batch: Sequence[Any] | None = None,
        mask_input_batch: Sequence[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Predicts masks on each image of a batch.

        Args:
            point_coords_batch: For each image what `predict` takes as point_coords.
            point_labels_batch: Likewise, point_labels.
            box_batch: Likewise, box.
            mask_input_batch: Likewise, mask_input.
            multimask_output: As in `predict`.
            return_logits: As in `predict`.
            normalize_coords: As in `predict`.

        Returns:
            Lists of what `predict` returns, an item for each image.

        Raises:
            MaskwireError: The errors of `predict`, for a batch that is not set (NO_IMAGE) or has another length.
        """
        images = self._set("set_image_batch")
        if not self._is_batch:
            raise ImageNotSet("a single image is set; call set_image_batch first, or predict", "NO_IMAGE")
        columns = {
            "point_coords_batch": point_coords_batch,
            "point_labels_batch": point_labels_batch,
            "box_batch": box_batch,
            "mask_input_batch": mask_input_batch,
        }
        for name, column in columns.items():
            if column is not None and len(column) != len(images):
                raise InvalidRequest(
                    f"{len(column)} items for {len(images)} images; give one for each image", "BATCH_MISMATCH", name
                )
        found = []
        for index, image in enumerate(images):
            points, labels, box, mask = (None if column is None else column[index] for column in columns.values())
            prompts = prompts_of(image, points, labels, box, mask, normalize_coords)
            found.append(self._predict(image, prompts, multimask_output, return_logits))
        masks, scores, logits = zip(*found, strict=True)
        return list(masks), list(scores), list(logits)

    def get_image_embedding(self) -> NoReturn:
        """Not served: embeddings stay in the servers' store, packed for their decoders.

        Raises:
            NotServed: NOT_SERVED, always; also a NotImplementedError.
        """
        raise NotServed(
            "the servers keep embeddings to themselves, packed for their decoders; for the tensor, run sam2's own "
            "SAM2ImagePredictor",
            "NOT_SERVED",
        )

    def reset_predictor(self) -> None:
        """Forgets the image or batch that is set. It stays in the store until it expires, since others may use it."""
        self._images = []
        self._is_batch = False

    def _set(self, method: str) -> list[EmbeddedImage]:
        if not self._images:
            raise ImageNotSet(f"no image is set; call {method}(...) first", "NO_IMAGE")
        return self._images

    def _predict(
        self, image: EmbeddedImage, prompts: Sequence[Prompt], multimask: bool, return_logits: bool
    ) -> Predicted:
        hole, sprinkle = self._areas
        if return_logits and (hole or sprinkle):
            raise NotServed(
                "the servers clean masks, not logits; leave out return_logits, or max_hole_area and max_sprinkle_area",
                "NOT_SERVED",
                "return_logits",
            )
        results: list[Result] = []
        for start in range(0, len(prompts), _PROMPTS_PER_CALL):
            part = prompts[start : start + _PROMPTS_PER_CALL]
            try:
                results += self._client.segment_objects(
                    image,
                    part,
                    every=True,
                    multimask=bool(multimask),
                    outputs=("logits",) if return_logits else ("rle", "logits"),
                    logits_dtype="float32",
                    unclamped_logits=return_logits,
                    mask_threshold=self.mask_threshold,
                    max_hole_area=hole,
                    max_sprinkle_area=sprinkle,
                )
            except InvalidRequest as error:
                raise in_arguments_words(error, start, len(prompts)) from error

        def stacked(read: Callable[[Any], Any]) -> NDArray[np.float32]:
            return np.array([[read(mask) for mask in result.candidates] for result in results], np.float32)

        low = stacked(lambda mask: mask.logits)
        if return_logits:
            masks = np.array([[enlarge(each, image.width, image.height) for each in candidates] for candidates in low])
            low = low.clip(-LOGIT_BOUND, LOGIT_BOUND)
        else:
            masks = stacked(lambda mask: mask.array)
        predicted = masks, stacked(lambda mask: mask.score), low
        return predicted if len(prompts) > 1 else (masks[0], predicted[1][0], low[0])


def _pixels(image: Any) -> Any:
    """Returns the pixels of an RGB image of PIL as they are: sam2 turns no picture by its EXIF orientation."""
    return np.asarray(image) if isinstance(image, Image.Image) and image.mode == "RGB" else image
