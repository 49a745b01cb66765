"""Answers with files that come in chunks from elsewhere: ETag, If-None-Match, Range and If-Range (RFC 9110)."""

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.http.problems import Problem
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

_ONE_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})", re.ASCII)
_ETAG = re.compile(r'(?:W/)?"([A-Za-z0-9._-]{1,128})"')
_MOST_ETAGS = 64


def known_etags(request: Request) -> list[str]:
    """The etags that a request names as those of what its caller has."""
    return _ETAG.findall(request.headers.get("if-none-match", ""))[:_MOST_ETAGS]


def wanted_part(request: Request) -> pb.FilePart | None:
    """The part of a file that a request asks for; None for the whole: where it has no Range, or one that servers may
    leave aside, which are several parts and the last so many bytes."""
    found = _ONE_RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None:
        return None
    first, last = int(found[1]), int(found[2]) if found[2] else None
    if last is not None and last < first:
        return None
    if_range = request.headers.get("if-range", "")
    is_strong = _ETAG.fullmatch(if_range) and not if_range.startswith("W/")
    if if_range and not is_strong:
        return None  # a date, which files here do not have
    return pb.FilePart(first_byte=first, max_bytes=0 if last is None else last - first + 1, if_etag=if_range.strip('"'))


async def answer(
    request: Request,
    responses: AsyncGenerator[Any, None],
    part: pb.FilePart | None,
    media_type: str,
    cache_control: str,
) -> Response:
    """Answers with a file, or with what the request asks for of it.

    Args:
        request: The request.
        responses: First a response whose `info` describes the file, then such with a `chunk` of the part.
        part: What was asked for.
        media_type: The file's media type.
        cache_control: How long it may be kept.

    Raises:
        Problem: BAD_RANGE: the part begins behind the file's end.
        MaskwireError: As `responses` does.
    """
    info: pb.FileInfo = (await anext(responses)).info
    headers = {"ETag": f'"{info.etag}"', "Cache-Control": cache_control, "Accept-Ranges": "bytes"}
    if info.etag in known_etags(request):
        await responses.aclose()
        return Response(status_code=304, headers=headers)
    total, status = info.total_bytes, 200
    length = total
    if part is not None and part.if_etag in ("", info.etag):
        if part.first_byte >= total:
            await responses.aclose()
            raise Problem(
                416, f"the file has {total} bytes", "BAD_RANGE", more_headers={"Content-Range": f"bytes */{total}"}
            )
        status, length = 206, total - part.first_byte
        length = min(length, part.max_bytes or length)
        headers["Content-Range"] = f"bytes {part.first_byte}-{part.first_byte + length - 1}/{total}"
    headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        await responses.aclose()
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(_chunks(responses), status, headers, media_type)


async def _chunks(responses: AsyncGenerator[Any, None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(responses):
        async for response in responses:
            yield response.chunk
