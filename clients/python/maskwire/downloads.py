"""Pictures at http and https addresses."""

import urllib.error
import urllib.request
from urllib.parse import urlsplit

from maskwire.errors import InvalidRequest

_TIMEOUT_S = 30
_MAX_BYTES = 256 << 20
_LOOPBACK = ("localhost", "127.", "[::1]", "::1")


def is_url(text: str) -> bool:
    """Whether a str is an http or https address."""
    return text.lower().startswith(("http://", "https://"))


def fetch(url: str) -> bytes:
    """The bytes at an address; at most 256 MiB, each part within 30 s. Loopback is never asked through a proxy.

    Raises:
        InvalidRequest: They cannot be had.
    """
    host = urlsplit(url).hostname or ""
    loopback = host.startswith(_LOOPBACK)
    handlers = [urllib.request.ProxyHandler({})] if loopback else []
    request = urllib.request.Request(url, headers={"User-Agent": "maskwire", "Accept": "image/*,*/*;q=0.8"})
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as response:
            data: bytes = response.read(_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise _failed(url, f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _failed(url, str(error.reason)) from error
    except (OSError, ValueError) as error:
        raise _failed(url, str(error) or type(error).__name__) from error
    if len(data) > _MAX_BYTES:
        raise InvalidRequest(f"{url} has more than {_MAX_BYTES >> 20} MiB", "IMAGE_TOO_LARGE", "image")
    return data


def _failed(url: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"cannot fetch {url}: {why}", "CANNOT_FETCH", "image")
