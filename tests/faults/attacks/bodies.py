"""Attacks on the gateway by bodies of requests: deep and large ones, and ones that grow."""

import asyncio
import zlib

import httpx

from .kinds import Outcomes, Target, attack

MIB = 1 << 20
_BASE64 = b'{"image":{"type":"base64","value":"%b"}}'


async def _posts(target: Target, path: str, body: bytes, at_once: int, **headers: str) -> Outcomes:
    outcomes = Outcomes()
    sent = {"content-type": "application/json", **dict(target.metadata)}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(base_url=f"http://{target.gateway}", timeout=target.seconds) as client:

        async def one() -> None:
            try:
                answer = await client.post(path, content=body, headers=sent)
                reason = answer.json().get("reason", "") if answer.status_code >= 400 else ""
                outcomes[f"{answer.status_code} {reason}".strip()] += 1
            except (httpx.HTTPError, ValueError) as error:
                outcomes[type(error).__name__] += 1

        await asyncio.gather(*(one() for _ in range(at_once)))
    return outcomes


@attack("deep JSON", "100 bodies of a megabyte of opening brackets", token=True)
async def deep(target: Target) -> Outcomes:
    return await _posts(target, f"/v1/images/{target.image_id}/segment", b'{"prompts":' + b"[" * MIB, 100)


@attack("wide JSON", "20 bodies with 400,000 empty objects each", token=True)
async def wide(target: Target) -> Outcomes:
    return await _posts(
        target, f"/v1/images/{target.image_id}/segment", b'{"prompts":[' + b"{}," * 400_000 + b"{}]}", 20
    )


@attack("prompts without number", "200 bodies of 120 kB with 40,000 empty prompts each for /sam2", token=True)
async def prompts(target: Target) -> Outcomes:
    body = b'{"image_id":"%b","prompts":[' % target.image_id.encode() + b"{}," * 40_000 + b"{}]}"
    return await _posts(target, "/sam2/segment_image", body, 200)


@attack("large bodies before the token", "20 bodies of 60 MiB", token=False)
async def large_bodies(target: Target) -> Outcomes:
    return await _posts(target, "/v1/images", bytes(60 * MIB), 20, content_type="application/octet-stream")


@attack("bodies that inflate", "50 bodies with content-encoding gzip", token=True)
async def gzipped(target: Target) -> Outcomes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = packer.compress(bytes(60 * MIB)) + packer.flush()
    return await _posts(target, "/v1/images", body, 50, content_encoding="gzip")


@attack("base64 of large files", "8 bodies of 60 MiB of JSON for /sam2", token=True)
async def base64_bodies(target: Target) -> Outcomes:
    return await _posts(target, "/sam2/embed_image", _BASE64 % (b"A" * 60 * MIB), 8)


@attack(
    "base64 and rare characters", "8 bodies of 40 MiB of JSON for /sam2, each with an emoji in its base64", token=True
)
async def wide_base64(target: Target) -> Outcomes:
    return await _posts(target, "/sam2/embed_image", _BASE64 % ("\N{PILE OF POO}".encode() + b"A" * 40 * MIB), 8)


@attack("forms with large files", "8 forms whose image file has 60 MiB", token=True)
async def forms(target: Target) -> Outcomes:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
    body = head + bytes(60 * MIB) + b"\r\n--x--\r\n"
    return await _posts(target, "/v1/images", body, 8, content_type="multipart/form-data; boundary=x")


@attack(
    "bodies that wait",
    "90 bodies of 15 MiB, of which most is blanks, for an image that never comes, with wait_ms of a minute",
    token=True,
)
async def waiting_bodies(target: Target) -> Outcomes:
    body = b'{"wait_ms":60000,"prompts":[{"points":[[3,3]]}]}' + b" " * 15 * MIB
    return await _posts(target, "/v1/images/missing/segment", body, 90)


@attack("clips as forms", "30 forms with a clip whose only frame has 60 MiB", token=True)
async def clips(target: Target) -> Outcomes:
    head = b'--x\r\ncontent-disposition: form-data; name="frame"; filename="x"\r\n\r\n'
    body = head + bytes(60 * MIB) + b"\r\n--x--\r\n"
    path = "/v1/clips?frames=1&width_px=60&height_px=40"
    return await _posts(target, path, body, 30, content_type="multipart/form-data; boundary=x")
