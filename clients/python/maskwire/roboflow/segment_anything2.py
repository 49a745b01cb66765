"""SegmentAnything2 with the methods of Roboflow's package, whose masks come from the servers."""

import base64
import binascii
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from maskwire.arguments import checked
from maskwire.bilinear import enlarge
from maskwire.client import Client
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import ImageNotFound, InvalidRequest
from maskwire.prompts import Prompt
from maskwire.roboflow.prompt_set import Sam2PromptSet, in_prompts_words
from maskwire.sam2.build_sam import ServedModel
from maskwire.sam2.prompt_batch import in_arguments_words
from maskwire.sam2.sam2_image_predictor import LOGIT_BOUND, SAM2ImagePredictor

_VERSIONS = ("hiera_tiny", "hiera_small", "hiera_b_plus", "hiera_large")


class Segmented(NamedTuple):
    """The best mask of each of N prompts."""

    masks: NDArray[np.float32]  # NxHxW, logits of the image's size
    scores: NDArray[np.float64]  # N, the IoU that the model predicts
    low_res_logits: NDArray[np.float32]  # NxSxS, clamped to -32..32


class SegmentationArguments(TypedDict, total=False):
    """Further arguments of `segment_image`.

    Attributes:
        multimask_output: Whether the best of three candidates is taken (True), or the single mask.
        mask_input: Low-resolution logits to refine: SxS or 1xSxS for one prompt, NxSxS or Nx1xSxS for N.
        save_logits_to_cache: Keep the low-resolution logits for later calls, for some minutes; False.
        load_logits_from_cache: Refine the logits that were kept of a call with fewer points; False.
        point_coords: Clicks on a single object, as older scripts give them: [[x, y], ...].
        point_labels: 1 or 0 for each of these; all 1.
        mask_input_format: No effect; neither have the others.
        use_mask_input_cache: See load_logits_from_cache.
        api_key: MASKWIRE_TOKEN has the token, if the servers want one.
    """

    multimask_output: bool
    mask_input: NDArray[Any] | None
    save_logits_to_cache: bool
    load_logits_from_cache: bool
    point_coords: Sequence[Sequence[float]] | None
    point_labels: Sequence[int] | None
    mask_input_format: str | None
    use_mask_input_cache: bool | None
    api_key: str | None


@checked
class SegmentAnything2:
    """SAM 2 as the published how-to of Roboflow's package uses it: `segment_image` returns two arrays.

    If no model of a named SAM 2 version is served, the encoder's default model answers, with a warning, as over /sam2.
    Scripts that unpack three arrays take `SegmentAnything2WithScores` instead.

    Args:
        model_id: sam2/hiera_large and so on, or any name that the encoder takes.
        api_key: No effect; MASKWIRE_TOKEN has the token, if the servers want one.
        client: The client whose servers answer; None for `Client()`, which the environment configures.
    """

    def __init__(
        self, model_id: str = "sam2/hiera_large", *, api_key: str | None = None, client: Client | None = None
    ) -> None:
        self.model_id = model_id
        self._client = client or Client()
        self.predictor = SAM2ImagePredictor(model_id, client=self._client)

    def embed_image(self, image: Any, image_id: str | None = None) -> tuple[EmbeddedImage, tuple[int, int], str]:
        """Computes and stores the embedding of an image, so that `segment_image` is quick.

        Args:
            image: Path, URL, bytes of a file, PIL image, array in BGR as OpenCV reads it, or {"type", "value"}.
            image_id: Name to store it under; None: the server makes one up.

        Returns:
            The stored image (its embedding stays on the server); (height, width) in pixels; and its name.

        Raises:
            MaskwireError: The errors of `Client.embed`.
        """
        stored = self._embed(image, image_id)
        return stored, (stored.height, stored.width), stored.image_id

    def segment_image(
        self,
        image: Any = None,
        image_id: str | None = None,
        prompts: Sam2PromptSet | Mapping[str, Any] | None = None,
        **arguments: Unpack[SegmentationArguments],
    ) -> tuple[NDArray[np.float32], ...]:
        """Segments objects of an image; without prompts, the most prominent one.

        Args:
            image: As in `embed_image`; not needed if image_id names a stored image.
            image_id: Name of the image.
            prompts: A prompt for each object.
            **arguments: `SegmentationArguments`.

        Returns:
            Masks as fp32 logits of the image's size, of which `>= predictor.mask_threshold` makes masks, and
            low-resolution logits, clamped to -32..32. With a prompt set NxHxW and NxSxS; else HxW and SxS.

        Raises:
            InvalidRequest: An argument is wrong; `field` says which.
            MaskwireError: The errors of `Client.segment_objects`.
        """
        found = self._segment(image, image_id, prompts, arguments)
        return found[::2] if prompts is not None else (found.masks[0], found.low_res_logits[0])

    def _embed(self, image: Any, image_id: str | None) -> EmbeddedImage:
        picture = _picture(image)
        channels: Any = {"channels": "bgr"} if isinstance(picture, np.ndarray) and picture.ndim == 3 else {}
        model = self.predictor.model.name
        try:
            return self._client.embed(picture, image_id, model=model, **channels)
        except ImageNotFound as error:
            if error.reason != "MODEL_NOT_FOUND" or model.removeprefix("sam2/") not in _VERSIONS:
                raise
            warnings.warn(f"{error}; the encoder's default model answers instead", stacklevel=4)
            self.predictor.model = ServedModel()
            return self._client.embed(picture, image_id, **channels)

    def _segment(self, image: Any, image_id: str | None, prompts: Any, arguments: SegmentationArguments) -> Segmented:
        if image is None and image_id is None:
            raise InvalidRequest("give an image, or the image_id of a stored one", "NO_IMAGE", "image")
        stored = self._embed(image, image_id) if image is not None else self._client.get(str(image_id))
        wanted = _prompts(prompts, arguments, stored)
        try:
            results = self._client.segment_objects(
                stored,
                wanted,
                multimask=bool(arguments.get("multimask_output", True)),
                save_logits=bool(arguments.get("save_logits_to_cache")),
                load_logits=bool(arguments.get("load_logits_from_cache")),
                outputs=("logits",),
                logits_dtype="float32",
                unclamped_logits=True,
            )
        except InvalidRequest as error:
            raise (in_arguments_words(error, 0, 1) if prompts is None else in_prompts_words(error)) from error
        low = np.stack([result.logits for result in results])
        masks = np.stack([enlarge(logits, stored.width, stored.height) for logits in low])
        return Segmented(masks, np.array([result.score for result in results]), low.clip(-LOGIT_BOUND, LOGIT_BOUND))


class SegmentAnything2WithScores(SegmentAnything2):
    """`SegmentAnything2` as newer releases of Roboflow's package have it: `segment_image` returns three arrays."""

    def segment_image(  # type: ignore[override]
        self,
        image: Any = None,
        image_id: str | None = None,
        prompts: Sam2PromptSet | Mapping[str, Any] | None = None,
        **arguments: Unpack[SegmentationArguments],
    ) -> Segmented:
        """Segments objects of an image, as `SegmentAnything2.segment_image`; returns masks, scores and low-resolution
        logits: NxHxW, N and NxSxS."""
        return self._segment(image, image_id, prompts, arguments)


def _prompts(prompts: Any, arguments: SegmentationArguments, image: EmbeddedImage) -> list[Prompt]:
    """Makes the prompts of a call, at least one."""
    coords, labels = arguments.get("point_coords"), arguments.get("point_labels")
    if isinstance(prompts, Mapping):
        prompts = Sam2PromptSet.of(prompts)
    if prompts is not None and not isinstance(prompts, Sam2PromptSet):
        raise InvalidRequest(f"{type(prompts).__name__} is no Sam2PromptSet", "BAD_PROMPT", "prompts")
    if prompts is not None and coords is not None:
        raise InvalidRequest("give prompts, or point_coords and point_labels, not both", "TWO_NAMES", "point_coords")
    if prompts is None:
        made = [Prompt(point_coords=coords, point_labels=labels)]
    else:
        made = prompts.of_image(image.width, image.height)
    if (given := arguments.get("mask_input")) is None:
        return made
    masks = np.asarray(given, np.float32)
    if masks.ndim < 2 or masks.size != len(made) * masks.shape[-1] * masks.shape[-2]:
        raise InvalidRequest(
            f"mask_input is SxS logits for each of {len(made)} prompts; got shape {masks.shape}",
            "BAD_MASK",
            "mask_input",
        )
    masks = masks.reshape(len(made), *masks.shape[-2:])
    return [replace(prompt, mask=mask) for prompt, mask in zip(made, masks, strict=True)]


def _picture(image: Any) -> Any:
    """Returns an image as `Client.embed` takes it: of {"type", "value"} the value, decoded if it is base64."""
    if not isinstance(image, Mapping):
        return image
    kind, value = str(image.get("type", "")).lower(), image.get("value")
    if kind == "base64" and isinstance(value, str) and not value.startswith(("http://", "https://")):
        try:
            return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value)
        except binascii.Error as error:
            raise InvalidRequest(f"the value is no base64: {error}", "BAD_IMAGE", "image") from error
    if kind not in ("url", "base64", "file", "pil", "pillow", "numpy_object", "multipart") or value is None:
        raise InvalidRequest(
            'an image is {"type": "url", "base64", "file", "pil" or "numpy_object", "value": ...}', "BAD_IMAGE", "image"
        )
    return value
