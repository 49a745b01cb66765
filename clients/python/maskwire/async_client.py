"""The asyncio client. The blocking client is generated from it by scripts/generate_blocking.py."""

import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from numpy.typing import NDArray

from maskwire.arguments import check_choice, checked
from maskwire.automatic_masks import FoundMask, Update
from maskwire.connection import Connection, in_callers_words
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import InvalidRequest, MaskwireError, bad_answer
from maskwire.image_arguments import (
    AskedImage,
    EmbedArguments,
    ImageArguments,
    ManyArguments,
    SegmentArguments,
    reading,
)
from maskwire.mask_generation import GenerationArguments, generate_masks
from maskwire.output_options import Format, Output, output_options
from maskwire.pipelined import pipelined
from maskwire.prompts import Box, Labels, Points, Prompt, check_normalized, prompts_from_boxes
from maskwire.regions import Place, choose_regions
from maskwire.results import Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike
from maskwire.track import AsyncTrack
from maskwire.track_opening import TrackArguments, TrackOpening
from maskwire.transport import Caller, Credentials, Servers, Tls
from maskwire.transport.caller import token_or_default
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2
from maskwire.video.clip import Clip, ClipLike
from maskwire.wanted_image import Wanted

AnImage = TypeVar("AnImage", bound=ImageLike | EmbeddedImage)
Prompts = Prompt | Sequence[Prompt]
Fetch = Callable[[decoder_pb2.SegmentRequest, int], Callable[[Format], Sequence[types_pb2.Mask]]]

_EMBEDS_IN_FLIGHT = 16
_SEGMENTS_IN_FLIGHT = 8
_PAGE_SIZE = 100


@checked
class AsyncClient:
    """Client of Maskwire's encoder and decoders.

    Arguments that do not exist raise `UnknownArgument`, which is also a TypeError.

    Args:
        encoder: Address of the encoder, "host:port"; by default MASKWIRE_ENCODER, else localhost:50051.
        decoder: Address of the decoder, or several separated by commas; by default MASKWIRE_DECODER, else
            localhost:50052. A client uses the same decoder for each image, and another one when that does not answer.
        namespace: Tenant; images of other namespaces are not visible. Empty for the token's namespace, or "default".
        token: Bearer token; by default MASKWIRE_TOKEN, else none is sent. Without TLS it can be read on the network.
        tls: True to encrypt with the system's certificates, or `Tls` for others. By default MASKWIRE_TLS=1,
            MASKWIRE_TLS_CA, MASKWIRE_TLS_CLIENT_CERT and MASKWIRE_TLS_CLIENT_KEY decide. Files are read once.
        timeout_s: Longest time for one call in seconds, including retries.
        retry_s: How long a call is retried while a server is unavailable or overloaded, in seconds.
        dead_after_s: Seconds after which a server that does not answer pings counts as dead. Raise it for slow links,
            where a ping waits behind a large response: 3 s suffices for 250 kB at 1 Mbit/s. Masks are much smaller.
        tracker: Address of the tracker, for `track`, or several separated by commas; by default MASKWIRE_TRACKER, else
            localhost:50053.

    Raises:
        MaskwireError: FORKED: this process was forked from one that had used a client.
    """

    _fetch: Fetch | None = None

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
        tracker: str | None = None,
    ) -> None:
        caller = Caller(token_or_default(token), namespace, timeout_s, retry_s)
        self._connection = Connection(Servers(encoder, decoder, Credentials(tls), dead_after_s, tracker), caller)

    @property
    def namespace(self) -> str:
        """Tenant, as given."""
        return self._connection.caller.namespace

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._connection!r}>"

    async def __aenter__(self) -> Self:
        self._connection.servers.check()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the sessions and the connections. Later calls raise MaskwireError (CLOSED)."""
        await self._connection.close()

    async def embed(
        self,
        image: ImageLike | EmbeddedImage,
        image_id: str | None = None,
        **arguments: Unpack[EmbedArguments],
    ) -> EmbeddedImage:
        """Computes and stores the embedding of an image. A stored image is neither sent nor encoded again.

        Args:
            image: Path, http or https URL, bytes of a file, open binary file, PIL image, NumPy array, torch tensor, or
                an `EmbeddedImage` from this client, to embed its picture again. Arrays are HxW, HxWx3 (RGB) or HxWx4
                (RGBA) of any real type; docs/reference/pictures.md has the rules.
            image_id: Name to store the image under, replacing any image of that name. None: the server makes one up.
            **arguments: How to embed it: `EmbedArguments` and `ReadingArguments`.

        Returns:
            The stored image, which other calls accept as their image.

        Raises:
            InvalidRequest: The image cannot be decoded, no such file exists (NO_SUCH_FILE), or the name is invalid.
            ImageNotFound: No encoder serves the model (MODEL_NOT_FOUND).
            Overloaded: Too many requests are waiting, or the image is too large.
            ServerUnavailable: No encoder answers.
        """
        source = await self._connection.source_of(image, reading(arguments))
        model, bulk = arguments.get("model", ""), arguments.get("bulk", False)
        stored = await self._connection.embed(source, image_id, model, bulk, arguments.get("keep_source", False))
        if arguments.get("tiles"):
            await self._connection.embed_tiles(Wanted(stored.image_id, stored, source, model))
        return stored

    @overload
    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        errors: Literal["raise"] = "raise",
        **arguments: Unpack[EmbedArguments],
    ) -> AsyncIterator[tuple[AnImage, EmbeddedImage]]: ...

    @overload
    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        errors: Literal["yield"],
        **arguments: Unpack[EmbedArguments],
    ) -> AsyncIterator[tuple[AnImage, EmbeddedImage | MaskwireError]]: ...

    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        errors: Literal["raise", "yield"] = "raise",
        **arguments: Unpack[EmbedArguments],
    ) -> AsyncIterator[tuple[AnImage, Any]]:
        """Embeds many images, several at a time.

        Args:
            images: Images as in `embed`; the iterable is consumed as the work proceeds.
            errors: "raise" stops at the first error; "yield" yields the error instead of the image and continues.
            **arguments: How to embed them: `EmbedArguments` and `ReadingArguments`.

        Yields:
            Each image with its stored image, in order of completion.

        Raises:
            MaskwireError: The errors of `embed`.
        """
        check_choice("errors", errors, ("raise", "yield"))

        async def embed(image: AnImage) -> EmbeddedImage:
            return await self.embed(image, **arguments)

        return pipelined(images, embed, _EMBEDS_IN_FLIGHT, errors == "yield", self._connection.servers.check)

    @overload
    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        errors: Literal["raise"] = "raise",
        **arguments: Unpack[ManyArguments],
    ) -> AsyncIterator[tuple[tuple[AnImage, Prompts], list[Result]]]: ...

    @overload
    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        errors: Literal["yield"],
        **arguments: Unpack[ManyArguments],
    ) -> AsyncIterator[tuple[tuple[AnImage, Prompts], list[Result] | MaskwireError]]: ...

    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        errors: Literal["raise", "yield"] = "raise",
        **arguments: Unpack[ManyArguments],
    ) -> AsyncIterator[tuple[tuple[AnImage, Prompts], Any]]:
        """Segments objects of many images, several at a time: while one image is encoded, others are decoded.

        Args:
            requests: Pairs of an image, as in `segment`, and a `Prompt` or a list of them; the iterable is consumed as
                the work proceeds.
            errors: "raise" stops at the first error; "yield" yields the error instead of the results and continues.
            **arguments: `ManyArguments`, `ReadingArguments` and `OutputArguments`.

        Yields:
            Each request with its results, one for each prompt, in order of completion.

        Raises:
            MaskwireError: The errors of `segment`.
        """
        check_choice("errors", errors, ("raise", "yield"))
        output_options(arguments)  # raises now what is wrong with them

        async def segment(request: tuple[AnImage, Prompts]) -> list[Result]:
            try:
                image, prompts = request
            except (TypeError, ValueError) as error:
                raise InvalidRequest(
                    "a request is (image, prompt) or (image, [prompt, ...])", "BAD_REQUEST", "requests"
                ) from error
            return await self.segment_objects(image, prompts, **arguments)

        return pipelined(requests, segment, _SEGMENTS_IN_FLIGHT, errors == "yield", self._connection.servers.check)

    async def segment(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        *,
        points: Points | None = None,
        labels: Labels | None = None,
        box: Box | None = None,
        mask: NDArray[Any] | None = None,
        save_logits: bool = False,
        load_logits: bool = False,
        point_coords: Points | None = None,
        point_labels: Labels | None = None,
        mask_input: NDArray[Any] | None = None,
        normalize_coords: bool = True,
        **arguments: Unpack[SegmentArguments],
    ) -> Result:
        """Segments one object; with no points, box or mask, the most prominent one.

        Coordinates are pixels from the top left corner of the image as a viewer shows it (EXIF orientation applied),
        given as lists, tuples, NumPy arrays or torch tensors.

        Args:
            image: Name of a stored image, an `EmbeddedImage`, or a picture: path, http or https URL, bytes of a file,
                PIL image, RGB array or open binary file. A picture is embedded first unless it is stored; a URL is
                fetched at each call. A str is a name if this client has embedded an image under it, else a path if
                that file exists, else a URL if it looks like one, else a name. A Path is always a file.
            points: Clicks as [(x, y), ...], or a single (x, y).
            labels: 1 (inside the object) or 0 (outside it) for each point; None for all 1.
            box: (x_min, y_min, x_max, y_max). For several boxes use `segment_objects(image, boxes=...)`.
            mask: Mask to refine: logits of an earlier result (`Result.logits`, SxS or 1xSxS floats), or a mask of the
                image's size (HxW bool, such as `Result.mask`).
            save_logits: Store the logits of the result for some minutes, for later calls in this namespace.
            load_logits: Refine the stored logits of an earlier call with fewer points, if there are any.
            point_coords: sam2's name for `points`.
            point_labels: sam2's name for `labels`.
            mask_input: sam2's name for `mask`.
            normalize_coords: sam2's argument; only True is accepted, which means that coordinates are pixels.
            **arguments: Which image, and what to return of each mask: `ImageArguments` and `OutputArguments`.

        Returns:
            The best mask, or all candidates.

        Raises:
            InvalidRequest: An argument is wrong; `field` says which. NO_SUCH_FILE: a str looks like a path, and neither
                that file nor an image of that name exists. OTHER_MODEL: another model embedded the image.
            ImageNotFound: No such image is stored, or no encoder serves the model. An image that this client embedded
                itself is embedded again if it has expired or was deleted.
            Overloaded: Too many requests are waiting, or the response would be too large.
            ServerUnavailable: No server answers.
            DeadlineExceeded: The timeout passed before the response arrived.
        """
        check_normalized(normalize_coords)
        prompt = Prompt(
            points,
            labels,
            box,
            mask,
            point_coords=point_coords,
            point_labels=point_labels,
            mask_input=mask_input,
        )
        try:
            (result,) = await self.segment_objects(
                image, [prompt], save_logits=save_logits, load_logits=load_logits, **arguments
            )
        except InvalidRequest as error:
            raise in_callers_words(error) from error
        return result

    async def segment_objects(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        prompts: Iterable[Prompt] | Prompt | None = None,
        *,
        boxes: Iterable[Box] | NDArray[Any] | None = None,
        save_logits: bool = False,
        load_logits: bool = False,
        **arguments: Unpack[SegmentArguments],
    ) -> list[Result]:
        """Segments several objects of one image in one request.

        Args:
            image: The image, as in `segment`.
            prompts: One prompt for each object.
            boxes: Boxes instead of prompts: Nx4, one (x_min, y_min, x_max, y_max) in pixels for each object.
            save_logits: Store the logits of the result for some minutes, for later calls in this namespace.
            load_logits: Refine the stored logits of an earlier call with fewer points, if there are any.
            **arguments: Which image, and what to return of each mask: `ImageArguments` and `OutputArguments`.

        Returns:
            One result for each prompt or box, in the same order.

        Raises:
            MaskwireError: The errors of `segment`.
        """
        if boxes is not None and prompts is not None:
            raise InvalidRequest("give prompts or boxes, not both", "TWO_NAMES", "boxes")
        if isinstance(prompts, Prompt) or not isinstance(prompts, Iterable | None):
            prompts = [prompts]
        several = prompts_from_boxes(boxes) if boxes is not None else list(prompts or ())
        asked, output = AskedImage.of(image, arguments), output_options(arguments)
        if not several:
            raise InvalidRequest(
                "there are no prompts; Prompt() without arguments means the most prominent object",
                "NO_PROMPTS",
                "prompts",
            )
        for index, prompt in enumerate(several):
            if not isinstance(prompt, Prompt):
                raise InvalidRequest(
                    f"{type(prompt).__name__} is not a prompt; give Prompt(points=..., box=...)",
                    "BAD_PROMPT",
                    f"prompts[{index}]",
                )
        messages = [prompt.message() for prompt in several]
        if asked.region == "auto":
            return await self._segment_in_regions(asked, output, messages, save_logits, load_logits)
        wanted = await self._connection.resolve(asked)
        return await self._ask(wanted, asked, output, messages, save_logits, load_logits)

    async def _segment_in_regions(
        self,
        asked: AskedImage,
        output: Output,
        messages: Sequence[types_pb2.Prompt],
        save_logits: bool,
        load_logits: bool,
    ) -> list[Result]:
        """Answers prompts, each in a region around its object; see `choose_regions`."""
        wanted = await self._connection.described(await self._connection.resolve_image(asked))
        plain = Output(types_pb2.OutputOptions(), ("rle",))
        if output.options.HasField("multimask"):
            plain.options.multimask = output.options.multimask

        async def look(place: Place, clicks: Sequence[types_pb2.Prompt]) -> list[Place]:
            results = await self._ask(await self._connection.of_region(wanted, place), asked, plain, clicks)
            return [result.box for result in results]

        assert wanted.stored is not None
        places = await choose_regions(messages, (wanted.stored.width, wanted.stored.height), look)
        results: dict[int, Result] = {}
        for place in dict.fromkeys(places):
            within = wanted if place is None else await self._connection.of_region(wanted, place)
            chosen = [index for index, each in enumerate(places) if each == place]
            prompts = [messages[index] for index in chosen]
            answers = await self._ask(within, asked, output, prompts, save_logits, load_logits)
            results.update(zip(chosen, answers, strict=True))
        return [results[index] for index in range(len(messages))]

    async def _ask(
        self,
        wanted: Wanted,
        asked: AskedImage,
        output: Output,
        messages: Sequence[types_pb2.Prompt],
        save_logits: bool = False,
        load_logits: bool = False,
    ) -> list[Result]:
        request = decoder_pb2.SegmentRequest(
            image_id=wanted.image_id,
            namespace=self.namespace,
            prompts=messages,
            output=output.options,
            wait_ms=asked.wait_ms,
            save_logits=save_logits,
            load_logits=load_logits,
            model=asked.model,
        )

        async def send(content_key: str) -> decoder_pb2.SegmentResponse:
            # A picture or EmbeddedImage means that image even if its name has been reused since.
            request.content_key = content_key
            return await self._connection.servers.segment(request, self._connection.caller)

        response = await self._connection.ask(wanted, send)
        if len(response.results) != len(messages):
            raise bad_answer(f"{len(response.results)} results for {len(messages)} prompts")
        cached = all(each is None or each.cached for each in (wanted.stored, wanted.region))
        source = wanted.source or self._connection.images.source(wanted.image_id, response.image.content_key)
        request.save_logits = False
        request.content_key = response.image.content_key  # forms that are fetched later must be of the same image
        return [
            Result(
                result,
                response=response,
                prompt=messages[index],
                forms=output.forms,
                cached=cached,
                source=source,
                # A form fetched later could be refined from other saved logits.
                fetch=None if self._fetch is None or result.refined else self._fetch(request, index),
                known_size=wanted.size,
            )
            for index, result in enumerate(response.results)
        ]

    def session(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        **arguments: Unpack[SegmentArguments],
    ) -> AsyncSession:
        """Makes an interactive session on an image. It opens at its first use, or with `async with`, which closes it.

        Unless `multimask` is given, a single click takes the best of three candidates, and any other prompt the single
        mask.

        Args:
            image: The image, as in `segment`.
            **arguments: Which image, and what to return of each mask: `ImageArguments` and `OutputArguments`.

        Raises:
            InvalidRequest: An argument is wrong; `field` says which. Errors about the image are raised when the session
                opens, as by `segment`.
        """
        self._connection.servers.check()
        return AsyncSession(self._connection, AskedImage.of(image, arguments), output_options(arguments))

    def track(self, clip: ClipLike | Clip | None = None, **arguments: Unpack[TrackArguments]) -> AsyncTrack:
        """Makes a track, which follows objects through a clip. It opens at its first use, or with `async with`.

        Args:
            clip: Path of a film, an animated picture or a folder of pictures, a list of pictures, or a `Clip`, which
                has the rules. None to go on with the stored track `track_id`, or to send frames one by one (`live`).
            **arguments: How to follow, and which frames: `TrackArguments` and `ClipArguments`.

        Raises:
            InvalidRequest: An argument is wrong; `field` says which. Errors about the clip are raised when the track
                opens.
        """
        self._connection.servers.check()
        return AsyncTrack(self._connection, TrackOpening(self._connection, clip, arguments))

    async def prefetch(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        **arguments: Unpack[ImageArguments],
    ) -> None:
        """Makes a decoder fetch the embedding of an image, so that the first click on it is fast.

        Args:
            image: The image, as in `segment`.
            **arguments: Which image: `ImageArguments`.

        Raises:
            MaskwireError: The errors of `segment`.
        """
        async with self.session(image, **arguments):
            pass

    def generate_masks(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        **arguments: Unpack[GenerationArguments],
    ) -> AsyncIterator[Update]:
        """Segments everything in an image as SAM2AutomaticMaskGenerator does, and yields masks as they are found.

        Closing the iterator cancels the work on the server. If the decoder dies, the work starts again on another one.
        Thresholds that are not given are the model's own: the values below, or for the demo model `pred_iou_thresh`
        0.35 and `stability_score_thresh` 0.4.

        Args:
            image: The image, as in `segment`.
            **arguments: Which image, and sam2's parameters: `ImageArguments` and `AutomaticMaskArguments`.

        Yields:
            The masks that the latest clicks have found, and all current masks.

        Raises:
            MaskwireError: The errors of `segment`.
        """
        return generate_masks(self._connection, image, arguments)

    async def everything(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        **arguments: Unpack[GenerationArguments],
    ) -> list[FoundMask]:
        """Segments everything in an image as SAM2AutomaticMaskGenerator does.

        If no mask is left, a warning says which thresholds removed them. Thresholds that are not given are the model's
        own: the values below, or for the demo model `pred_iou_thresh` 0.35 and `stability_score_thresh` 0.4.

        Args:
            image: The image, as in `segment`.
            **arguments: Which image, and sam2's parameters: `ImageArguments` and `AutomaticMaskArguments`.

        Returns:
            All masks, in the order of sam2.

        Raises:
            MaskwireError: The errors of `segment`.
        """
        masks: list[FoundMask] = []
        explanation = ""
        async for update in self.generate_masks(image, **arguments):
            masks, explanation = update.masks, update.explanation
        if not masks:
            warnings.warn(explanation, stacklevel=2)
        return masks

    async def images(self, prefix: str = "", *, limit: int | None = None) -> AsyncIterator[EmbeddedImage]:
        """Lists the stored images of this client's namespace, in no particular order.

        Images that are embedded or deleted during the iteration may be missing. Pages are requested as needed.

        Args:
            prefix: List only images whose names begin with this.
            limit: Largest number of images; None for all.

        Yields:
            Each image, once for each of its names.

        Raises:
            InvalidRequest: The limit is negative, or the prefix is invalid.
            NotAllowed: The token does not grant the right to read.
            ServerUnavailable: No encoder answers.
        """
        if limit is not None and limit < 0:
            raise InvalidRequest(f"limit is {limit}; give 0 or more, or None", "BAD_LIMIT", "limit")
        seen: set[str] = set()
        request = encoder_pb2.ListImagesRequest(namespace=self.namespace, prefix=prefix)
        while limit is None or len(seen) < limit:
            request.page_size = _PAGE_SIZE if limit is None else min(_PAGE_SIZE, limit - len(seen))
            page = await self._connection.servers.list_images(request, self._connection.caller)
            for info in page.images:
                # A page may be larger than asked for.
                if info.image_id not in seen and (limit is None or len(seen) < limit):
                    seen.add(info.image_id)
                    yield EmbeddedImage.from_messages(info)
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def get(self, image: str | EmbeddedImage) -> EmbeddedImage:
        """Returns the image that is stored under a name.

        Args:
            image: The name, or an `EmbeddedImage`.

        Raises:
            ImageNotFound: No image is stored under the name.
        """
        return await self._connection.get(_name_of(image))

    async def delete(self, image: str | EmbeddedImage, *, embedding: bool = False) -> bool:
        """Deletes the name of an image.

        Args:
            image: The name, or an `EmbeddedImage`.
            embedding: Also delete the embedding, which other names may share.

        Returns:
            Whether the name existed.
        """
        request = encoder_pb2.DeleteImageRequest(
            image_id=_name_of(image), namespace=self.namespace, delete_embedding=embedding
        )
        self._connection.images.forget(request.image_id)
        return (await self._connection.servers.delete_image(request, self._connection.caller)).deleted

    async def models(self) -> list[encoder_pb2.ModelInfo]:
        """Lists the models that the encoder serves, the default first."""
        return await self._connection.servers.list_models(self._connection.caller)


def _name_of(image: str | EmbeddedImage) -> str:
    if isinstance(image, EmbeddedImage):
        return image.image_id
    if not isinstance(image, str):
        raise InvalidRequest(
            f"{type(image).__name__} is not a name; give the image's name or an EmbeddedImage", "BAD_IMAGE_ID", "image"
        )
    return image
