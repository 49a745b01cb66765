"""The asyncio client."""

import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from numpy.typing import NDArray

from maskwire.arguments import check_choice, checked
from maskwire.automatic_masks import FoundMask, Update, arguments_of
from maskwire.connection import Connection, in_callers_words
from maskwire.errors import ImageNotFound, InvalidRequest, MaskwireError
from maskwire.generation import generate
from maskwire.pictures import Channels, Stretch
from maskwire.pipelined import pipelined
from maskwire.prompts import Box, Format, Labels, Points, Prompt, boxes_of, check_normalized, output_options, wait_ms
from maskwire.results import EmbeddedImage, Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike, Reading
from maskwire.transport import Caller, Credentials, Servers, Tls
from maskwire.transport.caller import token_or_default
from maskwire.transport.calls import EMBEDS
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2

T = TypeVar("T")
AnImage = TypeVar("AnImage", bound=ImageLike | EmbeddedImage)
Prompts = Prompt | Sequence[Prompt]
Output = tuple[types_pb2.OutputOptions, tuple[Format, ...]]
Fetch = Callable[[decoder_pb2.SegmentRequest, int], Callable[[Format], Sequence[types_pb2.Mask]]]

_EMBEDS_IN_FLIGHT = 16
_SEGMENTS_IN_FLIGHT = 8
_PAGE_SIZE = 100


@checked
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
        timeout_s: Longest time for one call in seconds, retries included.
        retry_s: How long a call is retried while a server is away or busy, in seconds.
        dead_after_s: Seconds after which a server that stopped answering is given up. Raise it for links on which a
            single answer takes longer: pings wait behind it. 3 s does for 250 kB at 1 Mbit/s; masks are much smaller.

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
    ) -> None:
        caller = Caller(token_or_default(token), namespace, timeout_s, retry_s)
        self._connection = Connection(Servers(encoder, decoder, Credentials(tls), dead_after_s), caller)

    @property
    def namespace(self) -> str:
        """Tenant, as given."""
        return self._connection.caller.namespace

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._connection!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends sessions and closes the connections. Later calls raise MaskwireError (CLOSED)."""
        await self._connection.close()

    def acting_as(self, token: str, *, namespace: str = "") -> Self:
        """A client that acts for somebody else, over this one's connections: for gateways.

        It remembers no images of this one's, and ends with this one; it need not be closed.

        Args:
            token: The other's bearer token, which the servers judge.
            namespace: Tenant; as of the client.
        """
        other = type(self).__new__(type(self))  # no connections of its own
        other._connection = self._connection.acting_as(token, namespace)
        return other

    async def embed(
        self,
        image: ImageLike | EmbeddedImage,
        image_id: str | None = None,
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> EmbeddedImage:
        """Makes an image ready for prompts. An image that is stored already is neither sent nor encoded again.

        Args:
            image: Path, http or https URL, bytes of a file, open binary file, PIL image, NumPy array, torch tensor; or
                what an earlier `embed` of this client returned, to embed its picture again. Arrays are HxW, HxWx3 (RGB)
                or HxWx4 (RGBA), of any real type; docs/pictures.md has the rules.
            image_id: Name for it; an existing name is re-pointed to this image. None: the server issues one.
            model: Name of the model; empty for the server's default.
            bulk: Low priority: images that somebody waits for go first.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.

        Returns:
            The stored image, which other calls take as their image.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: It is no image, no such file exists (NO_SUCH_FILE), or the name is not allowed.
            ImageNotFound: No encoder serves the model (MODEL_NOT_FOUND).
            Overloaded: Too much is waiting, or the image is too large.
            ServerUnavailable: Nobody answers.
        """
        source = await self._connection.source_of(image, Reading(channels, stretch))
        return await self._connection.embed(source, image_id, model, bulk)

    @overload
    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        errors: Literal["raise"] = "raise",
    ) -> AsyncIterator[tuple[AnImage, EmbeddedImage]]: ...

    @overload
    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        errors: Literal["yield"],
    ) -> AsyncIterator[tuple[AnImage, EmbeddedImage | MaskwireError]]: ...

    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        errors: Literal["raise", "yield"] = "raise",
    ) -> AsyncIterator[tuple[AnImage, Any]]:
        """Embeds many images, several at a time.

        Args:
            images: Images as in `embed`; taken as the work goes on.
            model: Name of the model; empty for the server's default.
            bulk: Low priority: images that somebody waits for go first.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.
            errors: "raise" ends with the first error; "yield" yields the error in place of the stored image, and goes
                on.

        Yields:
            Each image with what is stored of it, as they are ready.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            MaskwireError: What `embed` raises.
        """
        check_choice("errors", errors, ("raise", "yield"))

        async def embed(image: AnImage) -> EmbeddedImage:
            return await self.embed(image, model=model, bulk=bulk, channels=channels, stretch=stretch)

        return pipelined(images, embed, _EMBEDS_IN_FLIGHT, errors == "yield", self._connection.check)

    @overload
    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        model: str = "",
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        errors: Literal["raise"] = "raise",
        multimask: bool | None = None,
        every: bool = False,
        outputs: Iterable[Format] = ("rle",),
        logits_dtype: Literal["float16", "float32"] = "float16",
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        unclamped_logits: bool = False,
        multimask_output: bool | None = None,
        return_logits: bool = False,
    ) -> AsyncIterator[tuple[tuple[AnImage, Prompts], list[Result]]]: ...

    @overload
    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        model: str = "",
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        errors: Literal["yield"],
        multimask: bool | None = None,
        every: bool = False,
        outputs: Iterable[Format] = ("rle",),
        logits_dtype: Literal["float16", "float32"] = "float16",
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        unclamped_logits: bool = False,
        multimask_output: bool | None = None,
        return_logits: bool = False,
    ) -> AsyncIterator[tuple[tuple[AnImage, Prompts], list[Result] | MaskwireError]]: ...

    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        model: str = "",
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        errors: Literal["raise", "yield"] = "raise",
        multimask: bool | None = None,
        every: bool = False,
        outputs: Iterable[Format] = ("rle",),
        logits_dtype: Literal["float16", "float32"] = "float16",
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        unclamped_logits: bool = False,
        multimask_output: bool | None = None,
        return_logits: bool = False,
    ) -> AsyncIterator[tuple[tuple[AnImage, Prompts], Any]]:
        """Segments objects of many images, several at a time: while one is encoded, others are decoded.

        Args:
            requests: Pairs of an image, as in `segment`, and a `Prompt` or several; taken as the work goes on.
            model: Name of the model that must have embedded the images; as in `segment`.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.
            errors: "raise" ends with the first error; "yield" yields the error in place of the results, and goes on.
            multimask: True (default): the model's three candidates, for prompts that may mean several things. False:
                its single mask, or the best of three where that is unstable.
            every: All candidates in `Result.candidates` instead of the best one.
            outputs: Forms of mask to return: "rle", "png", "polygons", "packed_bits", "logits".
            logits_dtype: Precision of returned logits.
            mask_threshold: Logit above which a pixel is inside.
            max_hole_area: Holes of at most this many low-resolution pixels are filled; 0 leaves them.
            max_sprinkle_area: Islands of at most this many low-resolution pixels are removed; 0 leaves them.
            unclamped_logits: Return logits as the model has them instead of clamped to -32..32.
            multimask_output: sam2's name of `multimask`.
            return_logits: As in sam2; only False, since masks are thresholded by the server (see `outputs`).

        Yields:
            Each request with its results, one for each prompt, as they are ready.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            MaskwireError: What `segment` raises.
        """
        check_choice("errors", errors, ("raise", "yield"))
        output = output_options(
            multimask=multimask,
            every=every,
            outputs=outputs,
            logits_dtype=logits_dtype,
            mask_threshold=mask_threshold,
            max_hole_area=max_hole_area,
            max_sprinkle_area=max_sprinkle_area,
            unclamped_logits=unclamped_logits,
            multimask_output=multimask_output,
            return_logits=return_logits,
        )

        reading = Reading(channels, stretch)

        async def segment(request: tuple[AnImage, Prompts]) -> list[Result]:
            image, prompts = _pair(request)
            several = [prompts] if isinstance(prompts, Prompt) else list(prompts)
            return await self._segment(image, None, model, several, 0, (False, False), output, reading)

        return pipelined(requests, segment, _SEGMENTS_IN_FLIGHT, errors == "yield", self._connection.check)

    async def segment(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        *,
        image_id: str | None = None,
        points: Points | None = None,
        labels: Labels | None = None,
        box: Box | None = None,
        mask: NDArray[Any] | None = None,
        model: str = "",
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        save_logits: bool = False,
        load_logits: bool = False,
        multimask: bool | None = None,
        every: bool = False,
        outputs: Iterable[Format] = ("rle",),
        logits_dtype: Literal["float16", "float32"] = "float16",
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        unclamped_logits: bool = False,
        multimask_output: bool | None = None,
        return_logits: bool = False,
        point_coords: Points | None = None,
        point_labels: Labels | None = None,
        mask_input: NDArray[Any] | None = None,
        normalize_coords: bool = True,
    ) -> Result:
        """Segments one object. With no points, box or mask: the most prominent one.

        Coordinates are pixels of the image as a viewer shows it (EXIF orientation applied), from its top left corner.
        They may be lists, tuples, NumPy arrays or torch tensors.

        Args:
            image: What to segment: the name of a stored image; what `embed` returned; or a picture: path, http or https
                URL, bytes of a file, PIL image, array (RGB), or open binary file. A picture is embedded first if it is
                not stored yet; one from a URL is fetched at each call. A str is a name if this client has embedded an
                image under it, else a file if one exists, else a URL, else a name. A Path is always a file.
            image_id: Name of a stored image; together with a picture, the name to embed it under.
            model: Name of the model that must have embedded the image. A picture is embedded with it; a stored image
                of another model is an error. Empty: the default model for a picture, any for a stored image.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.
            points: Clicks as [(x, y), ...], or a single (x, y).
            labels: 1 (inside the object) or 0 (outside of it) for each point; all 1 when None.
            box: (x_min, y_min, x_max, y_max). Several boxes are several objects: `segment_objects(image, boxes=...)`.
            mask: What to refine: logits of an earlier result (`Result.logits`, SxS or 1xSxS floats), or a mask of the
                image's size (HxW bool, such as `Result.mask`).
            wait_s: How long to wait for an image that somebody else is embedding, in seconds, at most 60.
            save_logits: Keep this answer's logits for some minutes, for later calls of anybody in this namespace.
            load_logits: Refine the saved logits of an earlier call with fewer points, if there are any.
            multimask: True (default): the model's three candidates, for prompts that may mean several things. False:
                its single mask, or the best of three where that is unstable.
            every: All candidates in `Result.candidates` instead of the best one.
            outputs: Forms of mask to return: "rle", "png", "polygons", "packed_bits", "logits".
            logits_dtype: Precision of returned logits.
            mask_threshold: Logit above which a pixel is inside.
            max_hole_area: Holes of at most this many low-resolution pixels are filled; 0 leaves them.
            max_sprinkle_area: Islands of at most this many low-resolution pixels are removed; 0 leaves them.
            unclamped_logits: Return logits as the model has them instead of clamped to -32..32.
            multimask_output: sam2's name of `multimask`.
            return_logits: As in sam2; only False, since masks are thresholded by the server (see `outputs`).
            point_coords: sam2's name of `points`.
            point_labels: sam2's name of `labels`.
            mask_input: sam2's name of `mask`.
            normalize_coords: As in sam2; only True, which means pixels.

        Returns:
            The mask, or all candidates.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: An argument is wrong; `field` says which. NO_SUCH_FILE: a str looks like a file, and neither
                such a file nor an image of that name exists. OTHER_MODEL: another model embedded the image.
            ImageNotFound: No such image is stored, and this client has not embedded it either; what it has embedded
                itself and finds missing, expired or deleted, it embeds again. Or no encoder serves the model.
            Overloaded: Too much is waiting, or the answer would be too large.
            ServerUnavailable: Nobody answers.
            DeadlineExceeded: No answer came in time.
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
        output = output_options(
            multimask=multimask,
            every=every,
            outputs=outputs,
            logits_dtype=logits_dtype,
            mask_threshold=mask_threshold,
            max_hole_area=max_hole_area,
            max_sprinkle_area=max_sprinkle_area,
            unclamped_logits=unclamped_logits,
            multimask_output=multimask_output,
            return_logits=return_logits,
        )
        try:
            results = await self._segment(
                image, image_id, model, [prompt], wait_s, (save_logits, load_logits), output, Reading(channels, stretch)
            )
        except InvalidRequest as error:
            raise in_callers_words(error) from error
        return results[0]

    async def segment_objects(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        prompts: Iterable[Prompt] | None = None,
        *,
        boxes: Iterable[Box] | NDArray[Any] | None = None,
        image_id: str | None = None,
        model: str = "",
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        save_logits: bool = False,
        load_logits: bool = False,
        multimask: bool | None = None,
        every: bool = False,
        outputs: Iterable[Format] = ("rle",),
        logits_dtype: Literal["float16", "float32"] = "float16",
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        unclamped_logits: bool = False,
        multimask_output: bool | None = None,
        return_logits: bool = False,
    ) -> list[Result]:
        """Segments several objects of one image in one request.

        Args:
            image: What to segment: the name of a stored image; what `embed` returned; or a picture: path, http or https
                URL, bytes of a file, PIL image, array (RGB), or open binary file. A picture is embedded first if it is
                not stored yet; one from a URL is fetched at each call. A str is a name if this client has embedded an
                image under it, else a file if one exists, else a URL, else a name. A Path is always a file.
            image_id: Name of a stored image; together with a picture, the name to embed it under.
            model: Name of the model that must have embedded the image. A picture is embedded with it; a stored image
                of another model is an error. Empty: the default model for a picture, any for a stored image.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.
            prompts: An object each.
            boxes: Instead of prompts: Nx4, one (x_min, y_min, x_max, y_max) in pixels for each object.
            wait_s: How long to wait for an image that somebody else is embedding, in seconds, at most 60.
            save_logits: Keep this answer's logits for some minutes, for later calls of anybody in this namespace.
            load_logits: Refine the saved logits of an earlier call with fewer points, if there are any.
            multimask: True (default): the model's three candidates, for prompts that may mean several things. False:
                its single mask, or the best of three where that is unstable.
            every: All candidates in `Result.candidates` instead of the best one.
            outputs: Forms of mask to return: "rle", "png", "polygons", "packed_bits", "logits".
            logits_dtype: Precision of returned logits.
            mask_threshold: Logit above which a pixel is inside.
            max_hole_area: Holes of at most this many low-resolution pixels are filled; 0 leaves them.
            max_sprinkle_area: Islands of at most this many low-resolution pixels are removed; 0 leaves them.
            unclamped_logits: Return logits as the model has them instead of clamped to -32..32.
            multimask_output: sam2's name of `multimask`.
            return_logits: As in sam2; only False, since masks are thresholded by the server (see `outputs`).

        Returns:
            A result for each prompt or box, in their order.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: An argument is wrong; `field` says which. NO_SUCH_FILE: a str looks like a file, and neither
                such a file nor an image of that name exists. OTHER_MODEL: another model embedded the image.
            ImageNotFound: No such image is stored, and this client has not embedded it either; what it has embedded
                itself and finds missing, expired or deleted, it embeds again. Or no encoder serves the model.
            Overloaded: Too much is waiting, or the answer would be too large.
            ServerUnavailable: Nobody answers.
            DeadlineExceeded: No answer came in time.
        """
        if boxes is not None and prompts is not None:
            raise InvalidRequest("give prompts or boxes, not both", "TWO_NAMES", "boxes")
        if isinstance(prompts, Prompt):
            prompts = [prompts]
        output = output_options(
            multimask=multimask,
            every=every,
            outputs=outputs,
            logits_dtype=logits_dtype,
            mask_threshold=mask_threshold,
            max_hole_area=max_hole_area,
            max_sprinkle_area=max_sprinkle_area,
            unclamped_logits=unclamped_logits,
            multimask_output=multimask_output,
            return_logits=return_logits,
        )
        several = boxes_of(boxes) if boxes is not None else list(prompts or ())
        return await self._segment(
            image, image_id, model, several, wait_s, (save_logits, load_logits), output, Reading(channels, stretch)
        )

    def session(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        *,
        image_id: str | None = None,
        model: str = "",
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        multimask: bool | None = None,
        every: bool = False,
        outputs: Iterable[Format] = ("rle",),
        logits_dtype: Literal["float16", "float32"] = "float16",
        mask_threshold: float = 0.0,
        max_hole_area: int = 0,
        max_sprinkle_area: int = 0,
        unclamped_logits: bool = False,
        multimask_output: bool | None = None,
        return_logits: bool = False,
    ) -> AsyncSession:
        """An interactive session on an image. It opens at its first use, or with `async with`, which also closes it.

        Without `multimask`, a lone first click takes the best of three candidates and everything else the single mask.

        Args:
            image: What to segment: the name of a stored image; what `embed` returned; or a picture: path, http or https
                URL, bytes of a file, PIL image, array (RGB), or open binary file. A picture is embedded first if it is
                not stored yet; one from a URL is fetched at each call. A str is a name if this client has embedded an
                image under it, else a file if one exists, else a URL, else a name. A Path is always a file.
            image_id: Name of a stored image; together with a picture, the name to embed it under.
            model: Name of the model that must have embedded the image. A picture is embedded with it; a stored image
                of another model is an error. Empty: the default model for a picture, any for a stored image.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.
            wait_s: How long to wait for an image that somebody else is embedding, in seconds, at most 60.
            multimask: True (default): the model's three candidates, for prompts that may mean several things. False:
                its single mask, or the best of three where that is unstable.
            every: All candidates in `Result.candidates` instead of the best one.
            outputs: Forms of mask to return: "rle", "png", "polygons", "packed_bits", "logits".
            logits_dtype: Precision of returned logits.
            mask_threshold: Logit above which a pixel is inside.
            max_hole_area: Holes of at most this many low-resolution pixels are filled; 0 leaves them.
            max_sprinkle_area: Islands of at most this many low-resolution pixels are removed; 0 leaves them.
            unclamped_logits: Return logits as the model has them instead of clamped to -32..32.
            multimask_output: sam2's name of `multimask`.
            return_logits: As in sam2; only False, since masks are thresholded by the server (see `outputs`).

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: An argument is wrong; `field` says which. What is wrong with the image is told when the
                session opens, as by `segment`.
        """
        output = output_options(
            multimask=multimask,
            every=every,
            outputs=outputs,
            logits_dtype=logits_dtype,
            mask_threshold=mask_threshold,
            max_hole_area=max_hole_area,
            max_sprinkle_area=max_sprinkle_area,
            unclamped_logits=unclamped_logits,
            multimask_output=multimask_output,
            return_logits=return_logits,
        )
        return AsyncSession(self._connection, image, image_id, model, wait_s, output, Reading(channels, stretch))

    async def prefetch(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        *,
        image_id: str | None = None,
        model: str = "",
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> None:
        """Has the decoder that will answer clicks on an image fetch its embedding.

        Args:
            image: What to segment: the name of a stored image; what `embed` returned; or a picture: path, http or https
                URL, bytes of a file, PIL image, array (RGB), or open binary file. A picture is embedded first if it is
                not stored yet; one from a URL is fetched at each call. A str is a name if this client has embedded an
                image under it, else a file if one exists, else a URL, else a name. A Path is always a file.
            image_id: Name of a stored image; together with a picture, the name to embed it under.
            model: Name of the model that must have embedded the image. A picture is embedded with it; a stored image
                of another model is an error. Empty: the default model for a picture, any for a stored image.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: An argument is wrong; `field` says which. NO_SUCH_FILE: a str looks like a file, and neither
                such a file nor an image of that name exists. OTHER_MODEL: another model embedded the image.
            ImageNotFound: No such image is stored, and this client has not embedded it either; what it has embedded
                itself and finds missing, expired or deleted, it embeds again. Or no encoder serves the model.
            Overloaded: Too much is waiting, or the answer would be too large.
            ServerUnavailable: Nobody answers.
            DeadlineExceeded: No answer came in time.
        """
        async with self.session(image, image_id=image_id, model=model, channels=channels, stretch=stretch):
            pass

    def generate_masks(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        *,
        image_id: str | None = None,
        model: str = "",
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        points_per_side: int | None = None,
        points_per_batch: int | None = None,
        pred_iou_thresh: float | None = None,
        stability_score_thresh: float | None = None,
        stability_score_offset: float | None = None,
        mask_threshold: float | None = None,
        box_nms_thresh: float | None = None,
        crop_n_layers: int | None = None,
        crop_nms_thresh: float | None = None,
        crop_overlap_ratio: float | None = None,
        crop_n_points_downscale_factor: int | None = None,
        point_grids: Sequence[NDArray[Any]] | None = None,
        min_mask_region_area: int | None = None,
        use_m2m: bool | None = None,
        multimask_output: bool | None = None,
    ) -> AsyncIterator[Update]:
        """Segments everything in an image, as SAM2AutomaticMaskGenerator does; yields masks as they are found.

        Closing the iterator cancels the work on the server. Where its decoder dies, it begins again. Thresholds that
        are None are the model's own: the values below, unless the model came with others, as the demo model does
        (`pred_iou_thresh` 0.35, `stability_score_thresh` 0.4).

        Args:
            image: What to segment: the name of a stored image; what `embed` returned; or a picture: path, http or https
                URL, bytes of a file, PIL image, array (RGB), or open binary file. A picture is embedded first if it is
                not stored yet; one from a URL is fetched at each call. A str is a name if this client has embedded an
                image under it, else a file if one exists, else a URL, else a name. A Path is always a file.
            image_id: Name of a stored image; together with a picture, the name to embed it under.
            model: Name of the model that must have embedded the image. A picture is embedded with it; a stored image
                of another model is an error. Empty: the default model for a picture, any for a stored image.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.
            wait_s: How long to wait for an image that somebody else is embedding, in seconds, at most 60.
            points_per_side: Clicks along each side of a square grid; 32. Not together with point_grids.
            points_per_batch: Clicks between two updates; 64.
            pred_iou_thresh: Masks are kept whose predicted IoU is above this; 0.8.
            stability_score_thresh: Masks are kept whose stability score is not below this; 0.95.
            stability_score_offset: How far the threshold is raised and lowered for that score; 1.0.
            mask_threshold: Logit above which a pixel is inside; 0.0.
            box_nms_thresh: IoU of boxes above which two masks are the same; 0.7.
            crop_n_layers: How often the image is cut finer: layer i has 4 ** i crops, each embedded by itself; 0.
            crop_nms_thresh: As box_nms_thresh, between crops; 0.7.
            crop_overlap_ratio: How far crops of the first layer overlap, as a part of the image's shorter side;
                512 / 1500.
            crop_n_points_downscale_factor: By which points_per_side shrinks from layer to layer; 1.
            point_grids: Instead of points_per_side, Nx2 fractions of width and height for each layer.
            min_mask_region_area: Holes and islands of at most this many low-resolution pixels are removed; 0.
            use_m2m: Refine each mask once with its own logits; False.
            multimask_output: Three masks of each click, or one; True.

        Yields:
            What the latest clicks have found, and all masks that count by then.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: An argument is wrong; `field` says which. NO_SUCH_FILE: a str looks like a file, and neither
                such a file nor an image of that name exists. OTHER_MODEL: another model embedded the image.
            ImageNotFound: No such image is stored, and this client has not embedded it either; what it has embedded
                itself and finds missing, expired or deleted, it embeds again. Or no encoder serves the model.
            Overloaded: Too much is waiting, or the answer would be too large.
            ServerUnavailable: Nobody answers.
            DeadlineExceeded: No answer came in time.
        """
        arguments = arguments_of(
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            stability_score_offset=stability_score_offset,
            mask_threshold=mask_threshold,
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            point_grids=point_grids,
            min_mask_region_area=min_mask_region_area,
            use_m2m=use_m2m,
            multimask_output=multimask_output,
        )
        return generate(self._connection, image, image_id, model, wait_s, arguments, Reading(channels, stretch))

    async def everything(
        self,
        image: ImageLike | EmbeddedImage | None = None,
        *,
        image_id: str | None = None,
        model: str = "",
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        points_per_side: int | None = None,
        points_per_batch: int | None = None,
        pred_iou_thresh: float | None = None,
        stability_score_thresh: float | None = None,
        stability_score_offset: float | None = None,
        mask_threshold: float | None = None,
        box_nms_thresh: float | None = None,
        crop_n_layers: int | None = None,
        crop_nms_thresh: float | None = None,
        crop_overlap_ratio: float | None = None,
        crop_n_points_downscale_factor: int | None = None,
        point_grids: Sequence[NDArray[Any]] | None = None,
        min_mask_region_area: int | None = None,
        use_m2m: bool | None = None,
        multimask_output: bool | None = None,
    ) -> list[FoundMask]:
        """All masks of an image, as SAM2AutomaticMaskGenerator gives them.

        Where none is found, a warning says which thresholds removed them all. Thresholds that are None are the model's
        own: the values below, unless the model came with others, as the demo model does (`pred_iou_thresh` 0.35,
        `stability_score_thresh` 0.4).

        Args:
            image: What to segment: the name of a stored image; what `embed` returned; or a picture: path, http or https
                URL, bytes of a file, PIL image, array (RGB), or open binary file. A picture is embedded first if it is
                not stored yet; one from a URL is fetched at each call. A str is a name if this client has embedded an
                image under it, else a file if one exists, else a URL, else a name. A Path is always a file.
            image_id: Name of a stored image; together with a picture, the name to embed it under.
            model: Name of the model that must have embedded the image. A picture is embedded with it; a stored image
                of another model is an error. Empty: the default model for a picture, any for a stored image.
            channels: Order of an array's colours. Use "bgr" for what OpenCV's imread returns.
            stretch: How a picture's samples are mapped to 8 bits. "auto" stretches pictures of more than 8 bits a
                sample by their own range if they use less than a quarter of their type's; "none" never does, "range"
                always, and "percentile" maps the 1st percentile to black and the 99th to white.
            wait_s: How long to wait for an image that somebody else is embedding, in seconds, at most 60.
            points_per_side: Clicks along each side of a square grid; 32. Not together with point_grids.
            points_per_batch: Clicks between two updates; 64.
            pred_iou_thresh: Masks are kept whose predicted IoU is above this; 0.8.
            stability_score_thresh: Masks are kept whose stability score is not below this; 0.95.
            stability_score_offset: How far the threshold is raised and lowered for that score; 1.0.
            mask_threshold: Logit above which a pixel is inside; 0.0.
            box_nms_thresh: IoU of boxes above which two masks are the same; 0.7.
            crop_n_layers: How often the image is cut finer: layer i has 4 ** i crops, each embedded by itself; 0.
            crop_nms_thresh: As box_nms_thresh, between crops; 0.7.
            crop_overlap_ratio: How far crops of the first layer overlap, as a part of the image's shorter side;
                512 / 1500.
            crop_n_points_downscale_factor: By which points_per_side shrinks from layer to layer; 1.
            point_grids: Instead of points_per_side, Nx2 fractions of width and height for each layer.
            min_mask_region_area: Holes and islands of at most this many low-resolution pixels are removed; 0.
            use_m2m: Refine each mask once with its own logits; False.
            multimask_output: Three masks of each click, or one; True.

        Returns:
            The masks in sam2's order.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: An argument is wrong; `field` says which. NO_SUCH_FILE: a str looks like a file, and neither
                such a file nor an image of that name exists. OTHER_MODEL: another model embedded the image.
            ImageNotFound: No such image is stored, and this client has not embedded it either; what it has embedded
                itself and finds missing, expired or deleted, it embeds again. Or no encoder serves the model.
            Overloaded: Too much is waiting, or the answer would be too large.
            ServerUnavailable: Nobody answers.
            DeadlineExceeded: No answer came in time.
        """
        updates = self.generate_masks(
            image,
            image_id=image_id,
            model=model,
            wait_s=wait_s,
            channels=channels,
            stretch=stretch,
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            stability_score_offset=stability_score_offset,
            mask_threshold=mask_threshold,
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_n_layers,
            crop_nms_thresh=crop_nms_thresh,
            crop_overlap_ratio=crop_overlap_ratio,
            crop_n_points_downscale_factor=crop_n_points_downscale_factor,
            point_grids=point_grids,
            min_mask_region_area=min_mask_region_area,
            use_m2m=use_m2m,
            multimask_output=multimask_output,
        )
        masks: list[FoundMask] = []
        explanation = ""
        async for update in updates:
            masks, explanation = update.masks, update.explanation
        if not masks:
            warnings.warn(explanation, stacklevel=2)
        return masks

    async def images(self, prefix: str = "", *, limit: int | None = None) -> AsyncIterator[EmbeddedImage]:
        """The stored images of this client's namespace, in no particular order.

        Images that are embedded or deleted meanwhile may be missing. The store is read page by page, as the iteration
        goes on.

        Args:
            prefix: Only images whose names begin with this.
            limit: At most this many; None for all.

        Yields:
            Each image once for each of its names.

        Raises:
            UnknownArgument: There is no such argument; it is also a TypeError.
            InvalidRequest: `limit` is negative, or the prefix is not allowed.
            NotAllowed: The token does not have the right to read.
            ServerUnavailable: Nobody answers.
        """
        if limit is not None and limit < 0:
            raise InvalidRequest(f"limit is {limit}; give 0 or more, or None", "BAD_LIMIT", "limit")
        seen: set[str] = set()
        token = ""
        while limit is None or len(seen) < limit:
            size = _PAGE_SIZE if limit is None else min(_PAGE_SIZE, limit - len(seen))
            request = encoder_pb2.ListImagesRequest(
                namespace=self.namespace, prefix=prefix, page_size=size, page_token=token
            )
            page = await self._connection.servers.list_images(request, self._connection.caller)
            for info in page.images:
                if info.image_id not in seen and (limit is None or len(seen) < limit):
                    seen.add(info.image_id)
                    yield EmbeddedImage.read(info)
            token = page.next_page_token
            if not token:
                return

    async def get(self, image: str | EmbeddedImage) -> EmbeddedImage:
        """What is stored under a name.

        Args:
            image: The name, or what `embed` returned.

        Raises:
            ImageNotFound: Nothing is.
        """
        return await self._connection.get(_name_of(image))

    async def delete(self, image: str | EmbeddedImage, *, embedding: bool = False) -> bool:
        """Forgets an image's name, and with `embedding` its embedding too, which other names may share.

        Args:
            image: The name, or what `embed` returned.
            embedding: Delete the embedding as well.

        Returns:
            Whether the name existed.
        """
        request = encoder_pb2.DeleteImageRequest(
            image_id=_name_of(image), namespace=self.namespace, delete_embedding=embedding
        )
        self._connection.images.forget(request.image_id)
        return (await self._connection.servers.delete_image(request, self._connection.caller)).deleted

    async def models(self) -> list[encoder_pb2.ModelInfo]:
        """The models that the encoder serves, the default first."""
        return await self._connection.servers.list_models(self._connection.caller)

    async def _segment(
        self,
        image: ImageLike | EmbeddedImage | None,
        image_id: str | None,
        model: str,
        prompts: Sequence[Prompt],
        wait_s: float,
        logits: tuple[bool, bool],
        output: Output,
        reading: Reading,
    ) -> list[Result]:
        if not prompts:
            raise InvalidRequest(
                "no prompts; Prompt() alone asks for the most prominent object", "NO_PROMPTS", "prompts"
            )
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, Prompt):
                raise InvalidRequest(
                    f"{type(prompt).__name__} is no prompt; give Prompt(points=..., box=...)",
                    "BAD_PROMPT",
                    f"prompts[{index}]",
                )
        waiting = wait_ms(wait_s)
        options, outputs = output
        messages = [prompt.message() for prompt in prompts]
        wanted = await self._connection.resolve(image, image_id, model, reading)
        request = decoder_pb2.SegmentRequest(
            image_id=wanted.image_id,
            namespace=self.namespace,
            prompts=messages,
            output=options,
            wait_ms=waiting,
            # An image that was given itself is that image, whoever uses its name by now.
            content_key=wanted.stored.content_key if wanted.stored is not None else "",
            save_logits=logits[0],
            load_logits=logits[1],
            model=model,
        )
        cached = wanted.stored is None or wanted.stored.cached
        embeds = 0
        while True:
            try:
                response = await self._connection.servers.segment(request, self._connection.caller)
                break
            except ImageNotFound as error:
                embeds += 1
                again = await self._connection.embed_again(wanted) if embeds <= EMBEDS else None
                if again is None:
                    raise wanted.not_found(error) from error
                cached = cached and again.cached
                request.content_key = again.content_key
        source = wanted.source or self._connection.images.source(wanted.image_id, response.image.content_key)
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


def _pair(request: Any) -> tuple[Any, Any]:
    try:
        image, prompts = request
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            "a request is (image, prompt) or (image, [prompt, ...])", "BAD_REQUEST", "requests"
        ) from error
    if not isinstance(prompts, Prompt | Sequence) or isinstance(prompts, str | bytes):
        raise InvalidRequest(
            f"{type(prompts).__name__} is no prompt; give Prompt(points=..., box=...)", "BAD_PROMPT", "requests"
        )
    return image, prompts


def _name_of(image: str | EmbeddedImage) -> str:
    if isinstance(image, EmbeddedImage):
        return image.image_id
    if not isinstance(image, str):
        raise InvalidRequest(
            f"{type(image).__name__} is no name; give the image's name or what embed returned", "BAD_IMAGE_ID", "image"
        )
    return image
