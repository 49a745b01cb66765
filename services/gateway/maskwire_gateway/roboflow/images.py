"""Images as /sam2 requests give them: base64, data URI or URL."""

import asyncio
import base64
import binascii

from maskwire_gateway.http.bodies import Body
from maskwire_gateway.http.fetching import Fetcher
from maskwire_gateway.http.problems import Problem
from maskwire_gateway.roboflow.forms import Picture

_URLS = ("http://", "https://")
_TOLERATED = str.maketrans({"-": "+", "_": "/", "\n": "", "\r": "", " ": "", "\t": ""})


class Pictures:
    """Gets the bytes of image files, undecoded.

    Args:
        fetcher: For URLs; None where they are not allowed.
        max_bytes: Largest file.
    """

    def __init__(self, fetcher: Fetcher | None, max_bytes: int) -> None:
        self._fetcher = fetcher
        self._max_bytes = max_bytes

    async def read(self, picture: Picture, body: Body) -> bytes:
        """The file.

        Args:
            picture: Where it is. A URL may come with type base64 too, as a widespread how-to has it.
            body: Whose memory it takes.

        Raises:
            Problem: It is no such thing, too large, or cannot be fetched.
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
        data = await asyncio.to_thread(decode, picture.value)
        body.hold(len(data))
        if len(data) > self._max_bytes:
            raise Problem(413, f"the image is larger than {self._max_bytes} bytes", "IMAGE_TOO_LARGE", "image.value")
        return data


def decode(value: str, field: str = "image.value") -> bytes:
    """The bytes of base64 or a data URI.

    Raises:
        Problem: It is neither, or empty; `field` says where it was.
    """
    if value[:5].lower() == "data:":
        start, comma, value = value.partition(",")
        if not comma or not start.lower().rstrip().endswith(";base64"):
            raise Problem(400, "the data URI has no base64 in it", "BAD_BASE64", field)
    try:
        try:
            data = base64.b64decode(value, validate=True)
        except ValueError:  # line breaks, the alphabet for URLs, or no padding
            plain = value.translate(_TOLERATED).rstrip("=")
            data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(
            400, f"the value is no base64 ({error}); encode the image file's bytes", "BAD_BASE64", field
        ) from error
    if not data:
        raise Problem(400, "the image is empty", "EMPTY_IMAGE", field)
    return data
