"""The asyncio client."""

import asyncio
import copy
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from maskwire.calls import EMBEDS, pipelined
from maskwire.connection import Connection
from maskwire.credentials import Credentials, Tls
from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError
from maskwire.everything import EverythingArguments, FoundMask, Update
from maskwire.generation import generate
from maskwire.pictures import Channels, Stretch
from maskwire.prompts import Format, OutputArguments, Prompt, output_options, wait_ms
from maskwire.results import EmbeddedImage, Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike, Reading, Source
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2

T = TypeVar("T")
AnImage = TypeVar("AnImage", bound=ImageLike)
Prompts = Prompt | Sequence[Prompt]
Fetch = Callable[[decoder_pb2.SegmentRequest, int], Callable[[Format], Sequence[types_pb2.Mask]]]

_EMBEDS_IN_FLIGHT = 16
_SEGMENTS_IN_FLIGHT = 8


class AsyncClient:
    """Talks to Maskwire's encoder and decoders.

    Args:
        encoder: Address, "host:port"; else MASKWIRE_ENCODER, else localhost:50051.
        decoder: Address, or several separated by commas; else MASKWIRE_DECODER, else localhost:50052. A client keeps to
            one decoder for each image, and goes to the next when it does not answer.
        namespace: Tenant; images of other namespaces are out of sight. Empty: the token's own, or "default".
        token: Bearer token; else MASKWIRE_TOKEN, else none is sent. Without TLS, the network can read it.
        tls: Encrypts: True with the system's certificates, `Tls` with others; else as MASKWIRE_TLS=1, MASKWIRE_TLS_CA,
            MASKWIRE_TLS_CLIENT_CERT and MASKWIRE_TLS_CLIENT_KEY say, else not. Files are read once.
        timeout_s: Longest time for one call, retries included.
        retry_s: How long a call is retried while a server is away or busy.
        dead_after_s: Seconds after which a server that stopped answering is given up. Raise it for links on which a
            single answer takes longer: pings wait behind it. 3 s does for 250 kB at 1 Mbit/s; masks are much smaller.
    """

    def __init__(
        self,
        encoder: str | None = None,
        decoder: str | None = None,
        *,
        namespace: str = "",
        token: str | None = None,
        tls: Tls | bool | None = None,
        timeout_s: float = 60,
        retry_s: float = 15,
        dead_after_s: float = 3,
    ) -> None:
        self.namespace = namespace
        self._connection = Connection(
            encoder, decoder, namespace, timeout_s, retry_s, Credentials(token, tls), dead_after_s
        )
        self._fetch: Fetch | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._connection.close()

    def acting_as(self, token: str, *, namespace: str = "") -> Self:
        """A client that acts for somebody else, over this one's connections: for gateways.

        It remembers no images of this one's, and ends with this one; it need not be closed.

        Args:
            token: The other's bearer token, which the servers judge.
            namespace: As of `AsyncClient`.
        """
        other = copy.copy(self)
        other.namespace = namespace
        other._connection = self._connection.acting_as(token, namespace)
        return other

    async def embed(
        self,
        image: ImageLike,
        image_id: str | None = None,
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> EmbeddedImage:
        """Makes an image ready for prompts. An image that is stored already is neither sent nor encoded again.

        Args:
            image: Path, bytes of a file, open binary file, PIL image, NumPy array or torch tensor. Arrays are HxW,
                HxWx3 (RGB) or HxWx4 (RGBA), of any real type; docs/pictures.md has the rules.
            image_id: Name for it; an existing name is re-pointed to this image. None: the server issues one.
            model: Name of the model; empty for the server's default.
            bulk: Nobody waits for it: images that somebody waits for go first.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a sample by their
                own range if they use less than a quarter of their type's; "none" never does, "range" always, and
                "percentile" maps the 1st percentile to black and the 99th to white.

        Raises:
            InvalidRequest: It is no image, or the name is not allowed.
            Overloaded: Too much is waiting, or the image is too large.
            ServerUnavailable: Nobody answers.
        """
        source = await asyncio.to_thread(Source, image, Reading(channels, stretch))
        return await self._connection.embed(source, image_id, model, bulk)

    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> AsyncIterator[tuple[AnImage, EmbeddedImage | MaskwireError]]:
        """Embeds many images, several at a time. Yields each with its outcome as it is ready; see `embed`."""

        async def embed(image: AnImage) -> EmbeddedImage:
            return await self.embed(image, model=model, bulk=bulk, channels=channels, stretch=stretch)

        return pipelined(images, embed, _EMBEDS_IN_FLIGHT)

    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **output: Unpack[OutputArguments],
    ) -> AsyncIterator[tuple[tuple[AnImage, Prompts], list[Result] | MaskwireError]]:
        """Segments objects of many images, several at a time: while one is encoded, others are decoded.

        Args:
            requests: Images, as in `segment`, each with a prompt or several; taken as the work goes on.
            channels: As in `embed`.
            stretch: Likewise.
            output: What to return.

        Yields:
            Each request with its results, one for each prompt, or with what went wrong; as they are ready.
        """

        async def segment(request: tuple[AnImage, Prompts]) -> list[Result]:
            image, prompts = request
            several = [prompts] if isinstance(prompts, Prompt) else prompts
            return await self.segment_objects(image, several, channels=channels, stretch=stretch, **output)

        return pipelined(requests, segment, _SEGMENTS_IN_FLIGHT)

    async def segment(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        points: Iterable[Sequence[float]] | None = None,
        labels: Iterable[int] | None = None,
        box: Sequence[float] | None = None,
        mask: Any = None,
        wait_s: float = 0,
        save_logits: bool = False,
        load_logits: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **output: Unpack[OutputArguments],
    ) -> Result:
        """Segments one object. With no points, box or mask: the most prominent one.

        Args:
            image: Name of an embedded image, or an image as in `embed`, which is embedded first if it is not stored
                yet. A str is a path if such a file exists and this client knows no image of that name.
            image_id: Name of the image; with `image`, the name to embed it under.
            points: Clicks as (x, y) in pixels of the image as a viewer shows it.
            labels: 1 (inside) or 0 (outside) for each point; all 1 when None.
            box: (x_min, y_min, x_max, y_max) in pixels.
            mask: Logits of an earlier result, to refine.
            wait_s: How long to wait for an image that somebody else is embedding, at most 60.
            save_logits: Keep this answer's logits for some minutes, for later calls of anybody in this namespace.
            load_logits: Refine the saved logits of an earlier call with fewer points, if there are any.
            channels: Order of an array's colours, as in `embed`.
            stretch: How an image's samples are mapped to 8 bits, as in `embed`.
            output: What to return: multimask, every, outputs, logits_dtype, mask_threshold, max_hole_area,
                max_sprinkle_area, unclamped_logits; see `OutputArguments`.

        Raises:
            InvalidRequest: A prompt is wrong; `field` says where.
            ImageNotFound: No such image is stored, and this client has not embedded it either; what it has embedded
                itself and finds missing, expired or deleted, it embeds again.
            Overloaded: Too much is waiting, or the answer would be too large.
            ServerUnavailable: Nobody answers.
            DeadlineExceeded: No answer came in time.
        """
        prompts = [Prompt(points, labels, box, mask)]
        logits, reading = (save_logits, load_logits), Reading(channels, stretch)
        return (await self._segment(image, image_id, prompts, wait_s, logits, output, reading))[0]

    async def segment_objects(
        self,
        image: ImageLike | None,
        prompts: Iterable[Prompt],
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        save_logits: bool = False,
        load_logits: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **output: Unpack[OutputArguments],
    ) -> list[Result]:
        """Segments several objects of one image in one request; arguments and errors as in `segment`."""
        logits, reading = (save_logits, load_logits), Reading(channels, stretch)
        return await self._segment(image, image_id, list(prompts), wait_s, logits, output, reading)

    def session(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **output: Unpack[OutputArguments],
    ) -> AsyncSession:
        """An interactive session on an image, to be entered with `async with`; arguments and errors as in `segment`.

        Without `multimask`, a lone first click takes the best of three candidates and everything else the single mask.
        """
        return AsyncSession(self._connection, image, image_id, wait_s, output, Reading(channels, stretch))

    async def prefetch(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> None:
        """Has the decoder that will answer clicks on an image fetch its embedding; errors as in `segment`."""
        async with self.session(image, image_id=image_id, channels=channels, stretch=stretch):
            pass

    def generate_masks(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **arguments: Unpack[EverythingArguments],
    ) -> AsyncIterator[Update]:
        """Segments everything in an image, as SAM2AutomaticMaskGenerator does; yields masks as they are found.

        Leaving the iteration (closing it) ends the work on the server. Where its decoder dies, it begins again.

        Args:
            image: As in `segment`; with crop_n_layers the picture itself must be known.
            image_id: Likewise.
            wait_s: Likewise.
            channels: Likewise.
            stretch: Likewise.
            arguments: See `EverythingArguments`.

        Raises:
            InvalidRequest: A parameter is wrong.
            MaskwireError: As `segment`.
        """
        return generate(self._connection, image, image_id, wait_s, arguments, Reading(channels, stretch))

    async def everything(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **arguments: Unpack[EverythingArguments],
    ) -> list[FoundMask]:
        """All masks of an image, as SAM2AutomaticMaskGenerator gives them; see `generate_masks`.

        Where none is found, a warning says which thresholds removed them all.
        """
        masks: list[FoundMask] = []
        explanation = ""
        updates = self.generate_masks(
            image, image_id=image_id, wait_s=wait_s, channels=channels, stretch=stretch, **arguments
        )
        async for update in updates:
            masks, explanation = update.masks, update.explanation
        if not masks:
            warnings.warn(explanation, stacklevel=2)
        return masks

    async def get(self, image_id: str) -> EmbeddedImage:
        """What is stored under a name.

        Raises:
            ImageNotFound: Nothing is.
        """
        return await self._connection.get(image_id)

    async def delete(self, image_id: str, *, embedding: bool = False) -> bool:
        """Forgets an image's name, and with `embedding` its embedding too. Returns whether the name existed."""
        request = encoder_pb2.DeleteImageRequest(
            image_id=image_id, namespace=self.namespace, delete_embedding=embedding
        )
        self._connection.memory.forget(image_id)
        response = await self._connection.call_encoder(lambda stub, timeout: stub.DeleteImage(request, timeout=timeout))
        return response.deleted

    async def models(self) -> list[encoder_pb2.ModelInfo]:
        """The models that the encoder serves."""
        request = encoder_pb2.ListModelsRequest()
        response = await self._connection.call_encoder(lambda stub, timeout: stub.ListModels(request, timeout=timeout))
        return list(response.models)

    async def _segment(
        self,
        image: ImageLike | None,
        image_id: str | None,
        prompts: Sequence[Prompt],
        wait_s: float,
        logits: tuple[bool, bool],
        output: OutputArguments,
        reading: Reading,
    ) -> list[Result]:
        if not prompts:
            raise InvalidRequest(
                "no prompts; Prompt() alone asks for the most prominent object", "NO_PROMPTS", "prompts"
            )
        waiting = wait_ms(wait_s)
        options, outputs = output_options(output)
        messages = [prompt.message(f"prompts[{index}]") for index, prompt in enumerate(prompts)]
        image_id, wanted, source = await self._connection.resolve(image, image_id, reading)
        request = decoder_pb2.SegmentRequest(
            image_id=image_id,
            namespace=self.namespace,
            prompts=messages,
            output=options,
            wait_ms=waiting,
            # An image that was given itself is that image, whoever uses its name by now.
            content_key=wanted.content_key if wanted is not None else "",
            save_logits=logits[0],
            load_logits=logits[1],
        )
        cached = wanted is None or wanted.cached
        embeds = 0
        while True:
            try:
                response = await self._connection.call_decoder(request)
                break
            except ImageNotFound:
                embeds += 1
                source = source or self._connection.memory.source(image_id)
                if source is None or embeds > EMBEDS:
                    raise
                again = await self._connection.embed(source, image_id)
                cached = cached and again.cached
                request.content_key = again.content_key
        source = source or self._connection.memory.source(image_id, response.image.content_key)
        request.save_logits = False
        request.content_key = response.image.content_key  # forms that are fetched later are of the same image
        return [
            Result(
                result,
                response=response,
                prompt=messages[index],
                forms=outputs,
                cached=cached,
                source=source,
                # Asked again, saved logits may be others by then.
                fetch=None if self._fetch is None or result.refined else self._fetch(request, index),
            )
            for index, result in enumerate(response.results)
        ]
