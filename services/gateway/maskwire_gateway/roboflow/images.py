"""Images as /sam2 requests hold them: base64, data URI or URL."""

import asyncio

from maskwire_core.http.bodies import Body
from maskwire_core.http.images import decode_image
from maskwire_core.http.problems import Problem

from maskwire_gateway.http.fetching import Fetcher
from maskwire_gateway.roboflow.forms import Picture

_URLS = ("http://", "https://")


class ImageReader:
    """Reads image files from requests, without decoding the images.

    Args:
        fetcher: Fetches URLs; None where they are not allowed.
        max_bytes: Largest file.
    """

    def __init__(self, fetcher: Fetcher | None, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    async def read(self, picture: Picture, body: Body) -> bytes:
        """Returns the image file.

        Args:
            picture: The file or its URL. A URL may come with type base64 too, as in a widespread how-to.
            body: The body of the request, which the file's memory counts for.

        Raises:
            Problem: The file is empty, too large, no base64, or cannot be fetched.
        """
        if picture.type == "url" or picture.value[:8].lower().startswith(_URLS):
            if self._fetcher is None:
                raise Problem(
                    400,
                    "images by URL are not allowed here: send the file as base64, or start the gateway with --urls",
                    "URLS_OFF",
                    "image.value",
                )
            return await self._fetcher.fetch(picture.value, self._max_bytes, body)
        data = await asyncio.to_thread(decode_image, picture.value)
        body.hold(len(data))
        if len(data) > self._max_bytes:
            raise Problem(413, f"the image is larger than {self._max_bytes} bytes", "IMAGE_TOO_LARGE", "image.value")
        return data
