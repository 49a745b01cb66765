"""The servers behind the gateway, called as any client calls them."""

import dataclasses
import hashlib
import time

from maskwire import InvalidRequest, MaskwireError
from maskwire.transport import Caller, Credentials, Servers
from maskwire.v1 import encoder_pb2 as pb
from maskwire_core.config import GatewaySettings
from maskwire_core.http.problems import Problem
from maskwire_core.runtime.in_thread import in_thread

from maskwire_gateway.metrics import Telemetry

_MODELS_S = 5
_MAX_TOKENS = 1000
_JUDGE_S = 3.0
_JUDGE_RETRY_S = 0.3
_FIELDS_OF_THE_FILE = ("chunk", "header.size_bytes", "image")


class Upstream:
    """The servers that all callers of the gateway share.

    Args:
        settings: Addresses, and the limits of calls and image files.
        telemetry: Counts images.

    Attributes:
        servers: Encoders, decoders and trackers.
    """

    def __init__(self, settings: GatewaySettings, telemetry: Telemetry) -> None:
        self.servers = Servers(settings.encoder, settings.decoder, Credentials(), tracker=settings.tracker)
        self._timeout_s = settings.timeout_s
        self._retry_s = settings.retry_s
        self._max_image_bytes = settings.max_image_bytes
        self._telemetry = telemetry
        self._models: dict[str, tuple[float, list[pb.ModelInfo]]] = {}  # by token: not every caller may list them

    def caller(self, token: str) -> Caller:
        """The caller that has a token, which encoders and decoders judge. A text that cannot be a token, such as a key
        for another service that clients of /sam2 send, counts as none."""
        try:
            return Caller(token, "", self._timeout_s, self._retry_s)
        except InvalidRequest:
            return Caller("", "", self._timeout_s, self._retry_s)

    def without_retries(self, caller: Caller) -> Caller:
        """The caller of a request of which the gateway keeps nothing that it could send again."""
        return dataclasses.replace(caller, retry_s=0)

    async def embed(
        self, data: bytes, header: pb.EncodeImageHeader, caller: Caller, field: str
    ) -> pb.EncodeImageResponse:
        """Embeds an image file. One that is stored already is neither uploaded nor decoded.

        Args:
            data: The file; empty for a region that is cut from its image's kept one.
            header: Name, model and so on. Its size, and its digest if missing, are filled in.
            caller: On whose behalf.
            field: Where in the request the file is, for errors.

        Raises:
            Problem: IMAGE_TOO_LARGE.
            MaskwireError: As `AsyncClient.embed`.
        """
        if len(data) > self._max_image_bytes:
            raise Problem(413, f"the image is larger than {self._max_image_bytes} bytes", "IMAGE_TOO_LARGE", field)
        if data or not header.from_source:  # else there is no file
            header.sha256 = header.sha256 or (await in_thread(hashlib.sha256, data)).digest()
            header.size_bytes = len(data)
        try:
            response = await self.servers.encode_image(header, data, caller)
        except MaskwireError as error:
            error.field = field if error.field in _FIELDS_OF_THE_FILE else error.field.removeprefix("header.")
            raise
        self._telemetry.images.labels(str(response.cached).lower()).inc()
        return response

    async def judge(self, token: str) -> None:
        """Has an encoder judge a token; "" for callers without one.

        Raises:
            MaskwireError: NotAuthenticated: it is needed, and it is not valid. Any other kind tells nothing of it.
        """
        await self.servers.list_models(Caller(token, "", _JUDGE_S, _JUDGE_RETRY_S))

    async def models(self, caller: Caller) -> list[pb.ModelInfo]:
        """Lists the models that are served, as an encoder answered at most five seconds ago."""
        asked_at, models = self._models.get(caller.token, (0, []))
        if not models or time.monotonic() - asked_at > _MODELS_S:
            models = await self.servers.list_models(caller)
            if len(self._models) >= _MAX_TOKENS:
                self._models.clear()
            self._models[caller.token] = (time.monotonic(), models)
        return models
