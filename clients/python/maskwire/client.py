"""The blocking client: `AsyncClient` run on a background event loop."""

# Written by scripts/generate_blocking.py from async_client.py; change that, and run the script again.

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Self, Unpack, overload

from numpy.typing import NDArray

from maskwire.arguments import checked
from maskwire.async_client import AnImage, AsyncClient, Prompts
from maskwire.automatic_masks import FoundMask, Update
from maskwire.background import iterate_in_background, run_in_background
from maskwire.blocking_session import Session
from maskwire.blocking_track import Track
from maskwire.embedded_image import EmbeddedImage
from maskwire.errors import MaskwireError
from maskwire.image_arguments import EmbedArguments, ImageArguments, ManyArguments, SegmentArguments
from maskwire.mask_generation import GenerationArguments
from maskwire.output_options import FORMATS, Format
from maskwire.prompts import Box, Labels, Points, Prompt
from maskwire.results import Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike
from maskwire.track import AsyncTrack
from maskwire.track_opening import TrackArguments
from maskwire.transport import Tls
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2
from maskwire.video.clip import Clip, ClipLike


@checked
class Client:
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

    Safe to use from several threads. Results fetch forms of mask that were not requested on first access.
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
        tracker: str | None = None,
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
                tracker=tracker,
            )

        self._client = run_in_background(connect())
        self._client._fetch = self._fetch

    @property
    def namespace(self) -> str:
        """The tenant that was given."""
        return self._client.namespace

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", "Client")

    def __enter__(self) -> Self:
        self._client._connection.servers.check()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the sessions and the connections. Later calls raise MaskwireError (CLOSED)."""
        run_in_background(self._client.close())

    def embed(
        self, image: ImageLike | EmbeddedImage, image_id: str | None = None, **arguments: Unpack[EmbedArguments]
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
        return run_in_background(self._client.embed(image, image_id, **arguments))

    @overload
    def embed_many(
        self, images: Iterable[AnImage], *, errors: Literal["raise"] = "raise", **arguments: Unpack[EmbedArguments]
    ) -> Iterator[tuple[AnImage, EmbeddedImage]]: ...

    @overload
    def embed_many(
        self, images: Iterable[AnImage], *, errors: Literal["yield"], **arguments: Unpack[EmbedArguments]
    ) -> Iterator[tuple[AnImage, EmbeddedImage | MaskwireError]]: ...

    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        errors: Literal["raise", "yield"] = "raise",
        **arguments: Unpack[EmbedArguments],
    ) -> Iterator[tuple[AnImage, Any]]:
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
        return iterate_in_background(self._client.embed_many(images, errors=errors, **arguments))

    @overload
    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        errors: Literal["raise"] = "raise",
        **arguments: Unpack[ManyArguments],
    ) -> Iterator[tuple[tuple[AnImage, Prompts], list[Result]]]: ...

    @overload
    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        errors: Literal["yield"],
        **arguments: Unpack[ManyArguments],
    ) -> Iterator[tuple[tuple[AnImage, Prompts], list[Result] | MaskwireError]]: ...

    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        errors: Literal["raise", "yield"] = "raise",
        **arguments: Unpack[ManyArguments],
    ) -> Iterator[tuple[tuple[AnImage, Prompts], Any]]:
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
        return iterate_in_background(self._client.segment_many(requests, errors=errors, **arguments))

    def segment(
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
        return run_in_background(
            self._client.segment(
                image,
                points=points,
                labels=labels,
                box=box,
                mask=mask,
                save_logits=save_logits,
                load_logits=load_logits,
                point_coords=point_coords,
                point_labels=point_labels,
                mask_input=mask_input,
                normalize_coords=normalize_coords,
                **arguments,
            )
        )

    def segment_objects(
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
        return run_in_background(
            self._client.segment_objects(
                image, prompts, boxes=boxes, save_logits=save_logits, load_logits=load_logits, **arguments
            )
        )

    def session(self, image: ImageLike | EmbeddedImage | None = None, **arguments: Unpack[SegmentArguments]) -> Session:
        """Makes an interactive session on an image. It opens at its first use, or with `with`, which closes it.

        Unless `multimask` is given, a single click takes the best of three candidates, and any other prompt the single
        mask.

        Args:
            image: The image, as in `segment`.
            **arguments: Which image, and what to return of each mask: `ImageArguments` and `OutputArguments`.

        Raises:
            InvalidRequest: An argument is wrong; `field` says which. Errors about the image are raised when the session
                opens, as by `segment`.
        """

        async def make() -> AsyncSession:
            return self._client.session(image, **arguments)

        return Session(run_in_background(make()))

    def track(self, clip: ClipLike | Clip | None = None, **arguments: Unpack[TrackArguments]) -> Track:
        """Makes a track, which follows objects through a clip. It opens at its first use, or with `with`.

        Args:
            clip: Path of a film, an animated picture or a folder of pictures, a list of pictures, or a `Clip`, which
                has the rules. None to go on with the stored track `track_id`, or to send frames one by one (`live`).
            **arguments: How to follow, and which frames: `TrackArguments` and `ClipArguments`.

        Raises:
            InvalidRequest: An argument is wrong; `field` says which. Errors about the clip are raised when the track
                opens.
        """

        async def make() -> AsyncTrack:
            return self._client.track(clip, **arguments)

        return Track(run_in_background(make()))

    def prefetch(self, image: ImageLike | EmbeddedImage | None = None, **arguments: Unpack[ImageArguments]) -> None:
        """Makes a decoder fetch the embedding of an image, so that the first click on it is fast.

        Args:
            image: The image, as in `segment`.
            **arguments: Which image: `ImageArguments`.

        Raises:
            MaskwireError: The errors of `segment`.
        """
        return run_in_background(self._client.prefetch(image, **arguments))

    def generate_masks(
        self, image: ImageLike | EmbeddedImage | None = None, **arguments: Unpack[GenerationArguments]
    ) -> Iterator[Update]:
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
        return iterate_in_background(self._client.generate_masks(image, **arguments))

    def everything(
        self, image: ImageLike | EmbeddedImage | None = None, **arguments: Unpack[GenerationArguments]
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
        return run_in_background(self._client.everything(image, **arguments))

    def images(self, prefix: str = "", *, limit: int | None = None) -> Iterator[EmbeddedImage]:
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
        return iterate_in_background(self._client.images(prefix, limit=limit))

    def get(self, image: str | EmbeddedImage) -> EmbeddedImage:
        """Returns the image that is stored under a name.

        Args:
            image: The name, or an `EmbeddedImage`.

        Raises:
            ImageNotFound: No image is stored under the name.
        """
        return run_in_background(self._client.get(image))

    def delete(self, image: str | EmbeddedImage, *, embedding: bool = False) -> bool:
        """Deletes the name of an image.

        Args:
            image: The name, or an `EmbeddedImage`.
            embedding: Also delete the embedding, which other names may share.

        Returns:
            Whether the name existed.
        """
        return run_in_background(self._client.delete(image, embedding=embedding))

    def models(self) -> list[encoder_pb2.ModelInfo]:
        """Lists the models that the encoder serves, the default first."""
        return run_in_background(self._client.models())

    def _fetch(self, request: decoder_pb2.SegmentRequest, index: int) -> Callable[[Format], Sequence[types_pb2.Mask]]:
        """Returns a function that repeats one prompt of a request to get another form of its masks."""

        def fetch(form: Format) -> Sequence[types_pb2.Mask]:
            again = decoder_pb2.SegmentRequest()
            again.CopyFrom(request)
            again.load_logits = False
            del again.prompts[:]
            again.prompts.append(request.prompts[index])
            again.output.ClearField("formats")
            again.output.formats.append(FORMATS[form])
            connection = self._client._connection
            return run_in_background(connection.servers.segment(again, connection.caller)).results[0].masks

        return fetch
