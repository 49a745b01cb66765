"""The servers behind the gateway, spoken to as any client does."""

import asyncio
import copy
import hashlib
import time
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from maskwire import InvalidRequest, MaskwireError
from maskwire.connection import Connection
from maskwire.transport.calls import retrying
from maskwire.transport.channels import Channels
from maskwire.transport.credentials import Credentials
from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.config import GatewaySettings

from maskwire_gateway.roboflow.model_versions import no_model

_MODELS_S = 5
_MAX_TOKENS = 1000
_PROBE_S = 2
_OF_THE_FILE = ("chunk", "header.size_bytes", "image")


class Services:
    """Calls of encoders and decoders.

    Attributes:
        connection: The client's.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self.connection = Connection(
            settings.encoder, settings.decoder, "", settings.timeout_s, settings.retry_s, Credentials(token="")
        )
        self._token = ""
        self._models: dict[str, tuple[float, list[pb.ModelInfo]]] = {}  # by token: not everybody may ask

    async def close(self) -> None:
        await self.connection.close()

    def acting_as(self, token: str) -> Self:
        """The same for a caller with a token, which encoders and decoders judge."""
        other = copy.copy(self)
        try:
            other.connection = self.connection.acting_as(token, "")
        except InvalidRequest:  # /sam2's callers send what was a key elsewhere; where it can be no token, there is none
            token = ""
            other.connection = self.connection.acting_as(token, "")
        other._token = token
        return other

    async def embed(self, data: bytes, header: pb.EncodeImageHeader, place: str) -> pb.EncodeImageResponse:
        """Embeds an image file. One that is stored already is neither uploaded nor decoded.

        Args:
            data: The file.
            header: Name, model and so on; size, and digest where it is missing, are filled in here.
            place: Where in the request the file is, for errors.

        Raises:
            MaskwireError: As `AsyncClient.embed`.
        """
        header.sha256 = header.sha256 or (await asyncio.to_thread(hashlib.sha256, data)).digest()
        header.size_bytes = len(data)
        try:
            return await self.connection.upload(header, data)
        except MaskwireError as error:
            error.field = place if error.field in _OF_THE_FILE else error.field.removeprefix("header.")
            if error.reason == "MODEL_NOT_FOUND":
                error.message = no_model(header.model, await self.models())
            raise

    async def get(self, request: pb.GetImageRequest) -> pb.GetImageResponse:
        """What is stored under a name."""
        return await self.connection.call_encoder(lambda stub, timeout: stub.GetImage(request, timeout=timeout))

    async def list_images(self, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        """A page of what is stored."""
        return await self.connection.call_encoder(lambda stub, timeout: stub.ListImages(request, timeout=timeout))

    async def delete(self, request: pb.DeleteImageRequest) -> pb.DeleteImageResponse:
        """Forgets a name."""
        return await self.connection.call_encoder(lambda stub, timeout: stub.DeleteImage(request, timeout=timeout))

    async def models(self) -> list[pb.ModelInfo]:
        """The models that are served, as an encoder said seconds ago."""
        asked, models = self._models.get(self._token, (0, []))
        if not models or time.monotonic() - asked > _MODELS_S:
            request = pb.ListModelsRequest()
            response = await self.connection.call_encoder(
                lambda stub, timeout: stub.ListModels(request, timeout=timeout)
            )
            models = list(response.models)
            if len(self._models) >= _MAX_TOKENS:
                self._models.clear()
            self._models[self._token] = (time.monotonic(), models)
        return models

    async def missing(self) -> list[str]:
        """Of encoder and decoder those that nobody answers for now."""
        kinds = (self.connection.encoders, self.connection.decoders)
        answers = await asyncio.gather(*map(_serves, kinds))
        return [channels.kind for channels, serves in zip(kinds, answers, strict=True) if not serves]


async def _serves(channels: Channels) -> bool:
    async def check(channel: grpc.aio.Channel, left_s: float) -> bool:
        stub = health_pb2_grpc.HealthStub(channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=left_s)
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    try:
        # One attempt for each server: any of them will do.
        return await retrying(channels, "", check, _PROBE_S, _PROBE_S / 2)
    except MaskwireError:
        return False
