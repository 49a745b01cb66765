"""Images that Label Studio's tasks refer to, and the tasks that come next."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
from maskwire_core.http.images import decode_image
from maskwire_core.http.problems import Problem

from maskwire_adapters.label_studio_token import LabelStudioToken

_MAX_BYTES = 64 << 20
_TIMEOUT_S = 30
_LOCAL = "/data/local-files/"


class References:
    """Reads the images of tasks from Label Studio and a folder, and from nowhere else.

    Args:
        host: URL of Label Studio; None: nothing is fetched.
        token: A personal access token or a legacy token, sent to Label Studio alone.
        files: Folder of the files that /data/local-files/?d=... names; None: Label Studio is asked for them.
    """

    def __init__(self, host: str | None = None, token: str | None = None, files: Path | None = None) -> None:
        self._host = httpx.URL(host) if host else None
        self._token = LabelStudioToken(self._host, token) if self._host and token else None
        self._files = files.resolve() if files else None

    async def read(self, reference: str, field: str) -> bytes:
        """Reads the image file.

        Args:
            reference: A data URI, a path within Label Studio, or a URL of it.
            field: Path of the reference in the request, for errors.

        Raises:
            Problem: The image is elsewhere, or cannot be read.
        """
        if reference[:5].lower() == "data:":
            return await asyncio.to_thread(decode_image, reference, field)
        try:
            url = httpx.URL(reference)
            if self._files is not None and not url.host and url.path == _LOCAL:
                return await asyncio.to_thread(_read_file, self._files, url.params.get("d", ""), field)
            if self._host is None:
                raise Problem(
                    400,
                    "images are fetched from Label Studio alone, and its address is not known: start the adapter with "
                    "--host-url and --api-token, or with --files for local files",
                    "URLS_OFF",
                    field,
                )
            url = self._host.join(url)
        except httpx.InvalidURL as error:
            raise Problem(400, f"the URL cannot be read: {error}", "BAD_URL", field) from error
        if (url.scheme, url.host, url.port) != (self._host.scheme, self._host.host, self._host.port) or url.userinfo:
            raise Problem(
                400, f"images are fetched from {self._host} alone, not from {url.scheme}://{url.host}", "BAD_URL", field
            )
        return await self._fetch(url, field, "the image")

    @property
    def lists_tasks(self) -> bool:
        """Whether `next_tasks` can ask: Label Studio's address and a token are known."""
        return self._token is not None

    async def next_tasks(self, project: int, task: int, direction: int, count: int) -> list[dict[str, Any]]:
        """Lists the tasks that come after one, with their data, the nearest first.

        Args:
            project: Number of the project.
            task: Number of the task.
            direction: 1 for tasks with higher numbers, -1 for those with lower ones.
            count: How many at most.

        Raises:
            Problem: Label Studio does not list them.
        """
        assert self._host is not None
        operator, order = ("greater", "tasks:id") if direction > 0 else ("less", "-tasks:id")
        of_tasks = {"filter": "filter:tasks:id", "operator": operator, "type": "Number", "value": task}
        query = {"filters": {"conjunction": "and", "items": [of_tasks]}, "ordering": [order]}
        asked: dict[str, str | int] = {"project": project, "page_size": count, "query": json.dumps(query)}
        url = self._host.join("/api/tasks/").copy_merge_params(asked)
        answer = await self._fetch(url, "project", "the list of tasks")
        try:
            tasks: list[dict[str, Any]] = json.loads(answer)["tasks"]
            return [each for each in tasks if isinstance(each["id"], int) and isinstance(each["data"], dict)]
        except (KeyError, TypeError, ValueError) as error:
            raise Problem(400, "Label Studio answers with no list of tasks", "URL_FAILED", "project") from error

    async def _fetch(self, url: httpx.URL, field: str, what: str) -> bytes:
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                httpx.AsyncClient(trust_env=False, follow_redirects=False, auth=self._token) as http,
                http.stream("GET", url) as response,
            ):
                return await _read_response(response, field, what)
        except (httpx.HTTPError, TimeoutError) as error:
            raise Problem(
                400, f"{what} cannot be fetched: {str(error) or type(error).__name__}", "URL_FAILED", field
            ) from error


async def _read_response(response: httpx.Response, field: str, what: str) -> bytes:
    wrong = ""
    if response.status_code in (401, 403):
        wrong = ": give the adapter the token of a user who may see the project, as --api-token or LABEL_STUDIO_API_KEY"
    elif response.is_redirect:
        wrong = (
            ": it is in a cloud storage, where the adapter does not fetch images; upload it to Label Studio, or use "
            "local files"
        )
    if response.status_code != 200:
        raise Problem(400, f"Label Studio answers {response.status_code} for {what}{wrong}", "URL_FAILED", field)
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > _MAX_BYTES:
            raise Problem(413, f"{what} is larger than {_MAX_BYTES} bytes", "IMAGE_TOO_LARGE", field)
    return bytes(data)


def _read_file(folder: Path, name: str, field: str) -> bytes:
    with contextlib.suppress(OSError, ValueError):  # ValueError: a null character in the name
        path = (folder / name.lstrip("/")).resolve()
        if path.is_relative_to(folder) and path.is_file():
            if path.stat().st_size > _MAX_BYTES:
                raise Problem(413, f"the image is larger than {_MAX_BYTES} bytes", "IMAGE_TOO_LARGE", field)
            return path.read_bytes()
    raise Problem(400, f"there is no file {name!r} in the folder of --files", "NO_SUCH_FILE", field)
