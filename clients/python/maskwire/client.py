"""The blocking client: `AsyncClient` run on a background event loop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from maskwire.aio import AsyncClient, Prompts
from maskwire.background import each, run
from maskwire.blocking import Session
from maskwire.credentials import Tls
from maskwire.errors import MaskwireError
from maskwire.everything import EverythingArguments, FoundMask, Update
from maskwire.pictures import Channels, Stretch
from maskwire.prompts import FORMATS, Format, OutputArguments, Prompt
from maskwire.results import EmbeddedImage, Result
from maskwire.session import AsyncSession
from maskwire.sources import ImageLike
from maskwire.v1 import decoder_pb2, encoder_pb2, types_pb2

AnImage = TypeVar("AnImage", bound=ImageLike)


class Client:
    """Talks to Maskwire's encoder and decoders. Safe to use from several threads.

    Arguments as of `AsyncClient`, whose methods these are; see there for what they take and raise. Results fetch a form
    of mask that was not requested when it is first looked at.
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        run(self._client.close())

    def embed(
        self,
        image: ImageLike,
        image_id: str | None = None,
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> EmbeddedImage:
        """Makes an image ready for prompts; see `AsyncClient.embed`."""
        return run(self._client.embed(image, image_id, model=model, bulk=bulk, channels=channels, stretch=stretch))

    def embed_many(
        self,
        images: Iterable[AnImage],
        *,
        model: str = "",
        bulk: bool = False,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> Iterator[tuple[AnImage, EmbeddedImage | MaskwireError]]:
        """Embeds many images, several at a time; see `AsyncClient.embed_many`."""
        return each(self._client.embed_many(images, model=model, bulk=bulk, channels=channels, stretch=stretch))

    def segment_many(
        self,
        requests: Iterable[tuple[AnImage, Prompts]],
        *,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **output: Unpack[OutputArguments],
    ) -> Iterator[tuple[tuple[AnImage, Prompts], list[Result] | MaskwireError]]:
        """Segments objects of many images, several at a time; see `AsyncClient.segment_many`."""
        return each(self._client.segment_many(requests, channels=channels, stretch=stretch, **output))

    def segment(
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
        """Segments one object; see `AsyncClient.segment`."""
        return run(
            self._client.segment(
                image,
                image_id=image_id,
                points=points,
                labels=labels,
                box=box,
                mask=mask,
                wait_s=wait_s,
                save_logits=save_logits,
                load_logits=load_logits,
                channels=channels,
                stretch=stretch,
                **output,
            )
        )

    def segment_objects(
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
        """Segments several objects of one image; see `AsyncClient.segment_objects`."""
        return run(
            self._client.segment_objects(
                image,
                prompts,
                image_id=image_id,
                wait_s=wait_s,
                save_logits=save_logits,
                load_logits=load_logits,
                channels=channels,
                stretch=stretch,
                **output,
            )
        )

    def prefetch(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
    ) -> None:
        """Has the decoder that will answer clicks on an image fetch its embedding; see `AsyncClient.prefetch`."""
        run(self._client.prefetch(image, image_id=image_id, channels=channels, stretch=stretch))

    def session(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **output: Unpack[OutputArguments],
    ) -> "Session":
        """An interactive session on an image, to be entered with `with`; see `AsyncClient.session`."""

        async def make() -> AsyncSession:
            return self._client.session(
                image, image_id=image_id, wait_s=wait_s, channels=channels, stretch=stretch, **output
            )

        return Session(run(make()))

    def generate_masks(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **arguments: Unpack[EverythingArguments],
    ) -> Iterator[Update]:
        """Segments everything in an image, and yields masks as they are found; see `AsyncClient.generate_masks`."""
        return each(
            self._client.generate_masks(
                image, image_id=image_id, wait_s=wait_s, channels=channels, stretch=stretch, **arguments
            )
        )

    def everything(
        self,
        image: ImageLike | None = None,
        *,
        image_id: str | None = None,
        wait_s: float = 0,
        channels: Channels = "rgb",
        stretch: Stretch = "auto",
        **arguments: Unpack[EverythingArguments],
    ) -> list[FoundMask]:
        """All masks of an image; see `AsyncClient.everything`."""
        return run(
            self._client.everything(
                image, image_id=image_id, wait_s=wait_s, channels=channels, stretch=stretch, **arguments
            )
        )

    def get(self, image_id: str) -> EmbeddedImage:
        """What is stored under a name; see `AsyncClient.get`."""
        return run(self._client.get(image_id))

    def delete(self, image_id: str, *, embedding: bool = False) -> bool:
        """Forgets an image's name; see `AsyncClient.delete`."""
        return run(self._client.delete(image_id, embedding=embedding))

    def models(self) -> list[encoder_pb2.ModelInfo]:
        """The models that the encoder serves."""
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
            return run(self._client._connection.call_decoder(again)).results[0].masks

        return fetch
