"""Decodes PNG: chunks are parsed here, pixels are decoded by Pillow."""

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from maskwire.pictures.colour import MAX_PROFILE_BYTES
from maskwire.pictures.decoded import Decoded
from maskwire.pictures.errors import too_costly, unreadable
from maskwire.pictures.levels import Levels
from maskwire.pictures.limits import Limits

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_DEPTHS = {_GREY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GREY_ALPHA: (8, 16), _RGB_ALPHA: (8, 16)}
_MAX_CHUNKS = 100_000  # of 64 MiB, chunks of 670 bytes; usual ones have 8 KiB or more
_USED_CHUNKS = (b"PLTE", b"tRNS", b"iCCP", b"eXIf")


@dataclass
class _Chunks:
    header: bytes = b""
    pixels: list[bytes | memoryview] = field(default_factory=list)
    others: dict[bytes, bytes] = field(default_factory=dict)


def decode_png(data: bytes, limits: Limits) -> Decoded:
    """Decodes the IDAT chunks of a PNG file; in an APNG these are the default picture.

    Of the other chunks only PLTE, tRNS, iCCP and eXIf are used. As in libpng, a wrong checksum is an error in a chunk
    that the picture depends on; other chunks with a wrong checksum are ignored.

    Raises:
        PictureError: The file is damaged, or larger than the limits.
    """
    chunks = _parse_chunks(data)
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", chunks.header)
    limits.check(width, height)
    if depth not in _DEPTHS.get(kind, ()):
        raise unreadable(f"the PNG file states {depth} bits a sample for colour type {kind}, which PNG does not have")
    profile, exif = _icc_profile(chunks.others.get(b"iCCP")), chunks.others.get(b"eXIf")
    transparent = chunks.others.get(b"tRNS") if kind in (_GREY, _RGB) else None
    samples: NDArray[Any]
    if depth == 16:
        samples = _decode_16_bits(chunks, kind)
    else:
        image = PngImagePlugin.PngImageFile(io.BytesIO(_minimal_file(chunks, chunks.header, kind == _PALETTE)), "")
        image.load()
        if transparent is None:
            return Decoded(image=image, exif=exif, profile=profile)
        samples = np.asarray(image.convert("L") if kind == _GREY else image)
    colours = samples if kind in (_GREY, _RGB) else samples[..., :-1]
    colours = colours[..., 0] if colours.ndim == 3 and colours.shape[2] == 1 else colours
    alpha: NDArray[Any] | None = None if kind in (_GREY, _RGB) else samples[..., -1]
    if transparent is not None:
        alpha = _alpha_of_colour(colours, transparent, depth)
    return Decoded(levels=Levels(colours), alpha=alpha, exif=exif, profile=profile)


def _parse_chunks(data: bytes) -> _Chunks:
    view, place, chunks = memoryview(data), len(_SIGNATURE), _Chunks()
    ended, count = False, 0
    while place + 8 <= len(data):
        count += 1
        if count > _MAX_CHUNKS:
            raise too_costly(f"the PNG file has more than {_MAX_CHUNKS} chunks")
        length, kind = struct.unpack_from(">I4s", data, place)
        body = view[place + 8 : place + 8 + length]
        checksum = view[place + 8 + length : place + 12 + length]
        place += 12 + length
        is_whole = len(checksum) == 4
        if kind == b"IEND":
            break
        if kind in (b"IHDR", b"IDAT", b"PLTE"):
            if is_whole and zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
                raise unreadable(f"the PNG file is damaged: the checksum of its {kind.decode()} chunk is wrong")
        elif (
            kind not in _USED_CHUNKS
            or not is_whole
            or zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big")
        ):
            ended = ended or bool(chunks.pixels)
            continue
        if kind == b"IHDR":
            chunks.header = chunks.header or bytes(body)
        elif kind == b"IDAT":
            if not ended:
                chunks.pixels.append(body)
        else:
            ended = ended or bool(chunks.pixels)
            chunks.others.setdefault(kind, bytes(body))
    if len(chunks.header) != 13:
        raise unreadable("the PNG file is damaged: it does not begin with an IHDR chunk")
    if not chunks.pixels:
        raise unreadable("the PNG file is damaged or incomplete: it has no IDAT chunk")
    return chunks


def _minimal_file(chunks: _Chunks, header: bytes, with_palette: bool = False) -> bytes:
    """Builds a PNG file of only those chunks that the pixels depend on, so that no other chunk can make Pillow fail."""

    def chunk(kind: bytes, *body: bytes | memoryview) -> list[bytes | memoryview]:
        checksum = zlib.crc32(kind)
        for part in body:
            checksum = zlib.crc32(part, checksum)
        length = sum(map(len, body))
        return [struct.pack(">I", length), kind, *body, struct.pack(">I", checksum)]

    parts: list[bytes | memoryview] = [_SIGNATURE, *chunk(b"IHDR", header)]
    if with_palette:
        if b"PLTE" not in chunks.others:
            raise unreadable("the PNG file is damaged: it has no palette")
        parts += chunk(b"PLTE", chunks.others[b"PLTE"])
        if b"tRNS" in chunks.others:
            parts += chunk(b"tRNS", chunks.others[b"tRNS"])
    return b"".join([*parts, *chunk(b"IDAT", *chunks.pixels), *chunk(b"IEND")])


def _decode_16_bits(chunks: _Chunks, kind: int) -> NDArray[np.uint16]:
    """Decodes 16-bit samples, HxWxC, of which Pillow would keep only the upper 8 bits for most colour types."""
    if kind in (_GREY, _GREY_ALPHA):
        # PNG's filters work on bytes, so 16-bit grey can be declared as 8-bit grey with alpha, and with alpha as RGBA.
        header = bytearray(chunks.header)
        header[8:10] = (8, _GREY_ALPHA if kind == _GREY else _RGB_ALPHA)
        image = PngImagePlugin.PngImageFile(io.BytesIO(_minimal_file(chunks, bytes(header))), "")
        image.load()
        samples: NDArray[np.uint16] = np.asarray(image).view(">u2").astype(np.uint16)
        return samples
    file = _minimal_file(chunks, chunks.header)
    halves = []
    for byte_order in "BL":  # as big-endian Pillow keeps the upper bytes, as little-endian the lower ones
        image = PngImagePlugin.PngImageFile(io.BytesIO(file), "")
        image.tile = [tile._replace(args=f"{image.mode};16{byte_order}") for tile in image.tile]
        image.load()
        halves.append(np.asarray(image))
    joined: NDArray[np.uint16] = (halves[0].astype(np.uint16) << 8) | halves[1]
    return joined


def _alpha_of_colour(colours: NDArray[Any], transparent: bytes, depth: int) -> NDArray[np.uint8]:
    """Makes the alpha channel of a picture one colour of which is transparent.

    Args:
        colours: HxW or HxWx3 samples.
        transparent: Body of the tRNS chunk: the colour, at the file's bit depth.
        depth: Bits a sample in the file.
    """
    count = 1 if colours.ndim == 2 else 3
    if len(transparent) < 2 * count:
        return np.full(colours.shape[:2], 255, np.uint8)
    wanted = np.frombuffer(transparent, ">u2", count).astype(np.uint32) & ((1 << depth) - 1)
    if depth < 8:
        wanted = wanted * 255 // ((1 << depth) - 1)
    equal = colours == wanted[0] if count == 1 else (colours == wanted).all(axis=2)
    return np.where(equal, 0, 255).astype(np.uint8)


def _icc_profile(body: bytes | None) -> bytes | None:
    """Returns the ICC profile of an iCCP chunk; None if there is no chunk or it is damaged."""
    name, found, packed = (body or b"").partition(b"\0")
    if not found or not 1 <= len(name) <= 79 or packed[:1] != b"\0":
        return None
    try:
        return zlib.decompressobj().decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return None
