"""Has frames embedded: the tracker is a client of the encoder, on behalf of its own callers."""

import asyncio
import hashlib
from collections.abc import Mapping

from maskwire import MaskwireError
from maskwire.model_names import canonical
from maskwire.transport import Caller, Credentials, Servers, to_status
from maskwire.v1 import encoder_pb2 as pb
from maskwire.v1 import types_pb2
from maskwire_core.config import TrackerSettings
from maskwire_core.errors import CorruptValue, FailedPrecondition, NotFound, ServiceError, Unavailable, of_code
from maskwire_core.storage.embedding import Embedding, unpack

_TIMEOUT_S, _RETRY_S = 120, 30
_TYPES = {"fp32": types_pb2.DATA_TYPE_FP32, "fp16": types_pb2.DATA_TYPE_FP16}


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

    async def embed(self, file: bytes, *, namespace: str, model: str, codec: str, token: str) -> Embedding:
        """Has a frame embedded. The embedding comes from the encoder itself, and is not stored.

        Args:
            file: The frame's file.
            namespace: Its tenant.
            model: Name of the model.
            codec: Of the embedding, "fp32" or "fp16".
            token: The caller's token.
        """
        header = pb.EncodeImageHeader(
            namespace=namespace,
            sha256=hashlib.sha256(file).digest(),
            size_bytes=len(file),
            model=model,
            resize=pb.RESIZE_VIDEO_FRAME,
            stored_as=_TYPES[codec],
        )
        try:
            caller = Caller(token, timeout_s=_TIMEOUT_S, retry_s=_RETRY_S)
            value = await self._servers.embed_image(header, file, caller)
        except MaskwireError as error:
            raise relayed(error) from error
        try:
            return await asyncio.to_thread(unpack, memoryview(value))
        except CorruptValue as error:
            raise Unavailable("BAD_EMBEDDING", f"the encoder sent a damaged embedding: {error}") from error


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
