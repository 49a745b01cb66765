"""Fetches files by URL, without giving callers access to this machine's network."""

import asyncio
import io
import socket
from collections.abc import Sequence

import httpx
from maskwire.transport import is_public
from maskwire_core.http.bodies import Body
from maskwire_core.http.problems import Problem

_FIELD = "image.value"
_HEADERS = {"Accept": "image/*,*/*;q=0.1", "Accept-Encoding": "identity", "User-Agent": "maskwire"}


class Fetcher:
    """Fetches files from public addresses.

    A host is resolved once, and the connection goes to the address that was checked. Redirects are not followed, and no
    proxy is used.

    Args:
        hosts: Hosts, NAME or NAME:PORT, whose addresses need not be public.
        timeout_s: Longest time for resolving and fetching a URL, in seconds.
    """

    def __init__(self, hosts: Sequence[str], timeout_s: float) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._timeout_s = timeout_s

    async def fetch(self, url: str, max_bytes: int, body: Body) -> bytes:
        """Fetches a file.

        Args:
            url: An http or https URL.
            max_bytes: Largest file.
            body: The body of the request, which the file's memory counts for.

        Raises:
            Problem: BAD_URL, PRIVATE_URL, URL_REDIRECTS, URL_FAILED or IMAGE_TOO_LARGE.
        """
        try:
            parsed = httpx.URL(url.strip())
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise _refused(f"the URL cannot be read: {error}", "BAD_URL") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise _refused("a URL begins with http:// or https:// and names a host", "BAD_URL")
        if parsed.userinfo:
            raise _refused("a URL with a user or password in it is not fetched", "BAD_URL")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._get(parsed, await self._resolve(parsed), max_bytes, body)
        except TimeoutError as error:
            raise _refused(f"the URL did not answer within {self._timeout_s:g} s", "URL_FAILED") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
            raise _refused(f"the URL cannot be fetched: {str(error) or type(error).__name__}", "URL_FAILED") from error

    async def _resolve(self, url: httpx.URL) -> str:
        """Resolves a URL's host to an address that may be connected to."""
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(url.raw_host.decode(), port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not {url.host.lower(), f"{url.host.lower()}:{port}"} & self._hosts:
            # All must be public: a host with a private address beside a public one is not to be trusted.
            for address in addresses:
                if not is_public(address):
                    raise _refused(f"{url.host} is not at a public address; such URLs are not fetched", "PRIVATE_URL")
        return addresses[0]

    async def _get(self, url: httpx.URL, address: str, max_bytes: int, body: Body) -> bytes:
        # A client per fetch: a connection made for one host must not be reused for another at the same address.
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=self._timeout_s) as client,
            client.stream(
                "GET",
                url.copy_with(host=address),
                headers={**_HEADERS, "Host": url.netloc.decode()},
                extensions={"sni_hostname": url.raw_host.decode()},
            ) as response,
        ):
            if response.is_redirect:
                raise _refused("the URL redirects; give the address of the image itself", "URL_REDIRECTS")
            if response.status_code != 200:
                raise _refused(f"the URL answered {response.status_code}", "URL_FAILED")
            data = io.BytesIO()  # its value is what was written, not a copy
            async for chunk in response.aiter_raw():
                body.hold(len(chunk))
                data.write(chunk)
                if data.tell() > max_bytes:
                    raise Problem(413, f"the image is larger than {max_bytes} bytes", "IMAGE_TOO_LARGE", _FIELD)
        return data.getvalue()


def _refused(message: str, reason: str) -> Problem:
    return Problem(400, message, reason, _FIELD)
