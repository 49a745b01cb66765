"""Downloads images from http and https URLs."""

import urllib.error
import urllib.request
from urllib.parse import urlsplit

from maskwire.addresses import is_loopback, through_proxy
from maskwire.errors import InvalidRequest

_TIMEOUT_S = 30
_MAX_BYTES = 256 << 20


def is_url(text: str) -> bool:
    """Returns whether a text is an http or https URL."""
    return text.lower().startswith(("http://", "https://"))


def fetch(url: str) -> bytes:
    """Downloads a file of at most 256 MiB. Loopback hosts are never reached through a proxy.

    Args:
        url: http or https URL, whose server may pause for at most 30 s before and during the transfer.

    Raises:
        InvalidRequest: CANNOT_FETCH, or IMAGE_TOO_LARGE.
    """
    try:
        handlers = [urllib.request.ProxyHandler({})] if is_loopback(urlsplit(url).hostname or "") else []
        request = urllib.request.Request(url, headers={"User-Agent": "maskwire", "Accept": "image/*,*/*;q=0.8"})
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as response:
            data: bytes = response.read(_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise _failed(url, f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _failed(url, f"{error.reason}{through_proxy(url)}") from error
    except (OSError, ValueError) as error:
        raise _failed(url, f"{str(error) or type(error).__name__}{through_proxy(url)}") from error
    if len(data) > _MAX_BYTES:
        raise InvalidRequest(f"{url} has more than {_MAX_BYTES >> 20} MiB", "IMAGE_TOO_LARGE", "image")
    return data


def _failed(url: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"cannot fetch {url}: {why}", "CANNOT_FETCH", "image")
