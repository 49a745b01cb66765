"""The blocking client: `AsyncClient` run on a background event loop."""

# Written by scripts/generate_blocking.py from async_client.py; change that, and run the script again.

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Self, overload

from numpy.typing import NDArray

from maskwire.arguments import checked
from maskwire.async_client import AnImage, AsyncClient, Prompts
from maskwire.automatic_masks import FoundMask, Update
from maskwire.background import each, run
from maskwire.blocking_session import Session
from maskwire.errors import MaskwireError
from maskwire.pictures import Channels, Stretch
from maskwire.prompts import FORMATS, Box, Format, Labels, Points, Prompt
from maskwire.results import EmbeddedImage, Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike
from maskwire.transport import Tls
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2


@checked
class Client:
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

    Safe to use from several threads. Results fetch a form of mask that was not requested when it is first looked at.
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
        async def connect() -> AsyncClient:
            return AsyncClient(
                encoder,
                decoder,
                namespace=namespace,
                token=token,
                tls=tls,
                timeout_s=timeout_s,
                retry_s=retry_s,
                dead_after_s=dead_after_s,
            )

        self._client = run(connect())
        self._client._fetch = self._fetch

    @property
    def namespace(self) -> str:
        """Tenant, as given."""
        return self._client.namespace

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends sessions and closes the connections. Later calls raise MaskwireError (CLOSED)."""
        run(self._client.close())

    def embed(
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
        return run(self._client.embed(image, image_id, model=model, bulk=bulk, channels=channels, stretch=stretch))

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
    ) -> Iterator[tuple[AnImage, EmbeddedImage]]: ...

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
    ) -> Iterator[tuple[AnImage, EmbeddedImage | MaskwireError]]: ...

    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        errors: Literal["raise", "yield"] = "raise",
    ) -> Iterator[tuple[AnImage, Any]]:
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
        return each(
            self._client.embed_many(images, model=model, bulk=bulk, channels=channels, stretch=stretch, errors=errors)
        )

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
    ) -> Iterator[tuple[tuple[AnImage, Prompts], list[Result]]]: ...

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
    ) -> Iterator[tuple[tuple[AnImage, Prompts], list[Result] | MaskwireError]]: ...

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
    ) -> Iterator[tuple[tuple[AnImage, Prompts], Any]]:
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
        return each(
            self._client.segment_many(
                requests,
                model=model,
                channels=channels,
                stretch=stretch,
                errors=errors,
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
        )

    def segment(
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
        return run(
            self._client.segment(
                image,
                image_id=image_id,
                points=points,
                labels=labels,
                box=box,
                mask=mask,
                model=model,
                wait_s=wait_s,
                channels=channels,
                stretch=stretch,
                save_logits=save_logits,
                load_logits=load_logits,
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
                point_coords=point_coords,
                point_labels=point_labels,
                mask_input=mask_input,
                normalize_coords=normalize_coords,
            )
        )

    def segment_objects(
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
        return run(
            self._client.segment_objects(
                image,
                prompts,
                boxes=boxes,
                image_id=image_id,
                model=model,
                wait_s=wait_s,
                channels=channels,
                stretch=stretch,
                save_logits=save_logits,
                load_logits=load_logits,
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
    ) -> Session:
        """An interactive session on an image. It opens at its first use, or with `with`, which also closes it.

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

        async def make() -> AsyncSession:
            return self._client.session(
                image,
                image_id=image_id,
                model=model,
                wait_s=wait_s,
                channels=channels,
                stretch=stretch,
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

        return Session(run(make()))

    def prefetch(
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
        return run(self._client.prefetch(image, image_id=image_id, model=model, channels=channels, stretch=stretch))

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
    ) -> Iterator[Update]:
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
        return each(
            self._client.generate_masks(
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
        )

    def everything(
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
        return run(
            self._client.everything(
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
        )

    def images(self, prefix: str = "", *, limit: int | None = None) -> Iterator[EmbeddedImage]:
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
        return each(self._client.images(prefix, limit=limit))

    def get(self, image: str | EmbeddedImage) -> EmbeddedImage:
        """What is stored under a name.

        Args:
            image: The name, or what `embed` returned.

        Raises:
            ImageNotFound: Nothing is.
        """
        return run(self._client.get(image))

    def delete(self, image: str | EmbeddedImage, *, embedding: bool = False) -> bool:
        """Forgets an image's name, and with `embedding` its embedding too, which other names may share.

        Args:
            image: The name, or what `embed` returned.
            embedding: Delete the embedding as well.

        Returns:
            Whether the name existed.
        """
        return run(self._client.delete(image, embedding=embedding))

    def models(self) -> list[encoder_pb2.ModelInfo]:
        """The models that the encoder serves, the default first."""
        return run(self._client.models())

    def _fetch(self, request: decoder_pb2.SegmentRequest, index: int) -> Callable[[Format], Sequence[types_pb2.Mask]]:
        """Asks one prompt of a request again, for another form of its masks."""

        def fetch(form: Format) -> Sequence[types_pb2.Mask]:
            again = decoder_pb2.SegmentRequest()
            again.CopyFrom(request)
            again.load_logits = False
            del again.prompts[:]
            again.prompts.append(request.prompts[index])
            again.output.ClearField("formats")
            again.output.formats.append(FORMATS[form])
            connection = self._client._connection
            return run(connection.servers.segment(again, connection.caller)).results[0].masks

        return fetch
