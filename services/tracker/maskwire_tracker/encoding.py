"""Has frames encoded: the tracker is a client of the encoder, on behalf of its own callers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from maskwire import MaskwireError
from maskwire.model_names import canonical
from maskwire.transport import Caller, Credentials, Servers, to_status
from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.config import TrackerSettings
from maskwire_core.errors import FailedPrecondition, NotFound, ServiceError, of_code

_FRAME_TTL_S = 300
"""Seconds after which a frame's embedding expires that no tracker has deleted, because it was killed."""
_TIMEOUT_S, _RETRY_S = 120, 30
_TYPES = {"fp32": types_pb2.DATA_TYPE_FP32, "fp16": types_pb2.DATA_TYPE_FP16}


@dataclass(frozen=True)
class EncodedFrame:
    """A frame whose embedding is stored."""

    content_key: str  # of the embedding
    width: int  # of the frame, in pixels
    height: int  # likewise
    is_ours: bool  # whether this tracker had it encoded, so that nobody else may want it


class FrameEncoder:
    """Connections to the encoders. Raises their errors as `ServiceError`.

    Args:
        settings: Where they are.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self._servers = Servers(settings.encoder, None, Credentials())

    async def close(self) -> None:
        """Closes the connections."""
        await self._servers.close()

    async def model(self, name: str, token: str) -> pb.ModelInfo:
        """Returns a model that the encoder serves, the default one if the name is empty.

        Raises:
            NotFound: MODEL_NOT_FOUND.
        """
        try:
            models = await self._servers.list_models(Caller(token, timeout_s=_TIMEOUT_S, retry_s=_RETRY_S))
        except MaskwireError as error:
            raise relayed(error) from error
        wanted = canonical(name) if name else ""
        for model in models:
            if model.name == wanted or (model.is_default and not wanted):
                return model
        served = ", ".join(model.name for model in models)
        raise NotFound("MODEL_NOT_FOUND", f"no model {name!r} is served here; there are {served}", field="open.model")

    async def encode(
        self, file: bytes, *, namespace: str, name: str, model: str, codec: str, token: str
    ) -> EncodedFrame:
        """Has a frame encoded, unless its embedding is stored.

        Args:
            file: The frame's file.
            namespace: Its tenant.
            name: Name of its image.
            model: Name of the model.
            codec: How its embedding is stored.
            token: The caller's token.
        """
        header = pb.EncodeImageHeader(
            image_id=name,
            namespace=namespace,
            sha256=hashlib.sha256(file).digest(),
            size_bytes=len(file),
            model=model,
            resize=pb.RESIZE_VIDEO_FRAME,
            stored_as=_TYPES[codec],
            ttl_s=_FRAME_TTL_S,
        )
        try:
            caller = Caller(token, timeout_s=_TIMEOUT_S, retry_s=_RETRY_S)
            answer = await self._servers.encode_image(header, file, caller)
        except MaskwireError as error:
            raise relayed(error) from error
        image = answer.image
        return EncodedFrame(image.content_key, image.width_px, image.height_px, not answer.cached)


def relayed(error: MaskwireError) -> ServiceError:
    """Returns an error of the encoder as the tracker's own."""
    kind = of_code(to_status(error).code)
    return kind(error.reason or "ENCODER_FAILED", error.message, field=error.field, retry_after_s=error.retry_after_s)


def token_of(metadata: Mapping[str, str | bytes]) -> str:
    """Returns the bearer token of a call, or ""."""
    return str(metadata.get("authorization", "")).partition(" ")[2].strip()


def no_memory(model: str) -> FailedPrecondition:
    return FailedPrecondition(
        "NO_MEMORY",
        f"the weights of {model!r} know single images only; serve a published SAM 2 checkpoint, or set hand_over, "
        "which is worse",
        field="open.model",
    )
