"""CVAT's AI agents: an interaction function, which cvat-cli runs where the servers can be reached.

cvat-cli function create-native "Maskwire" --function-module maskwire_adapters.cvat_agent
cvat-cli function run-agent ID --function-module maskwire_adapters.cvat_agent
"""

import functools
import os

import cvat_sdk.auto_annotation as cvataa
import PIL.Image
from cvat_sdk import models
from cvat_sdk.masks import encode_mask
from maskwire import Client, EmbeddedImage, MaskwireError
from maskwire.suggest import no_such
from maskwire_core.http.problems import Problem

from maskwire_adapters.marks import Click, Marks, Rectangle


def create(encoder: str = "", decoder: str = "", model: str = "", namespace: str = "") -> "Function":
    """Makes the function; cvat-cli calls this with its options -p NAME=str:VALUE.

    Args:
        encoder: Address of the encoder; empty: MASKWIRE_ENCODER, else localhost:50051.
        decoder: Address of the decoder, or several separated by commas; empty: MASKWIRE_DECODER, else localhost:50052.
        model: Name of the model; empty: the encoder's default.
        namespace: Tenant; empty: that of the token, which is in MASKWIRE_TOKEN.
    """
    return Function(
        encoder or os.environ.get("MASKWIRE_ENCODER", "localhost:50051"),
        decoder or os.environ.get("MASKWIRE_DECODER", "localhost:50052"),
        model,
        namespace,
    )


class Function:
    """What CVAT calls an interactor: clicks, a box, or both, to one mask.

    Args:
        encoder: Address of the encoder.
        decoder: Addresses of decoders, separated by commas.
        model: Name of the model; empty: the encoder's default.
        namespace: Tenant; empty: the token's own.

    Attributes:
        spec: Which prompts CVAT lets people give.
    """

    def __init__(self, encoder: str, decoder: str, model: str, namespace: str) -> None:
        self.spec = cvataa.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)
        self._encoder, self._decoder, self._model, self._namespace = encoder, decoder, model, namespace

    @functools.cached_property
    def _client(self) -> Client:
        # Not before the first picture: cvat-cli makes functions in more processes than call them.
        return Client(self._encoder, self._decoder, namespace=self._namespace)

    def preprocess_image(self, context: cvataa.InteractionFunctionContext, image: PIL.Image.Image) -> EmbeddedImage:
        """Embeds a picture, of which the agent keeps the name for further clicks.

        Raises:
            RuntimeError: With the servers' message, which the agent writes to its log.
        """
        try:
            return self._client.embed(image, model=self._model)
        except MaskwireError as error:
            if error.reason == "MODEL_NOT_FOUND":
                raise RuntimeError(no_such("model", self._model, [one.name for one in self._client.models()])) from None
            raise RuntimeError(str(error)) from None

    def detect(
        self, context: cvataa.InteractionFunctionContext, pp_image: EmbeddedImage, prompts: cvataa.InteractionPrompts
    ) -> list[cvataa.InteractionResultShape]:
        """Returns the mask of the object, or nothing if it is empty.

        Raises:
            RuntimeError: With what is wrong with the prompts, or the servers' message.
        """
        marks = _marks(prompts)
        if not marks.clicks and marks.rectangle is None:
            raise RuntimeError("click at the object, or draw a rectangle around it")
        try:
            prompt = marks.prompt(pp_image.width, pp_image.height)
            (result,) = self._client.segment_objects(pp_image, [prompt], outputs=("rle",))
        except (MaskwireError, Problem) as error:
            raise RuntimeError(str(error)) from None
        if not result.mask.any():
            return []
        # The model's prediction of an IoU may exceed 1 a little.
        confidence = models.AttributeValRequest(
            spec_id=cvataa.InteractionResultAttributes.CONFIDENCE, value=f"{min(max(result.score, 0), 1):.4f}"
        )
        return [
            cvataa.InteractionResultShape(type="mask", points=encode_mask(result.mask), attributes=[confidence]),
        ]


def _marks(prompts: cvataa.InteractionPrompts) -> Marks:
    clicks = [
        Click(x, y, inside, f"{field}[{index}]")
        for field, points, inside in (
            ("pos_points", prompts.pos_points, True),
            ("neg_points", prompts.neg_points, False),
        )
        for index, (x, y) in enumerate(points)
    ]
    rectangle = None
    if prompts.bounding_box is not None:
        (x0, y0), (x1, y1) = prompts.bounding_box
        rectangle = Rectangle(x0, y0, x1, y1, "bounding_box")
    return Marks(clicks, rectangle)
