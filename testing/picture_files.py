"""A corpus of image files, each with the pixels that it shows by the rules of docs/reference/pictures.md.

Where the reader decodes a format with Pillow, the files are made with tifffile or OpenCV, or byte by byte.
"""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

Pixels = NDArray[np.uint8]
File = tuple[bytes, Pixels]


def scene() -> NDArray[np.uint8]:
    """Returns 45x63 pixels of grey squares that use the whole range from 0 to 255."""
    coarse = np.random.default_rng(18).integers(0, 256, (5, 7)).astype(np.uint8)
    grey = np.kron(coarse, np.ones((9, 9), np.uint8))
    grey[0, :2] = 0, 255
    return grey


GREY = scene()
RGB = np.stack([GREY, 255 - GREY, np.roll(GREY, 5, 1)], axis=-1)
ALPHA = np.where(np.arange(63) < 20, 0, 255).astype(np.uint8)[None].repeat(45, 0)


def shown(grey: NDArray[Any]) -> Pixels:
    """Returns grey levels as RGB."""
    return np.dstack([grey.astype(np.uint8)] * 3)


def over_white(pixels: Pixels) -> Pixels:
    """Returns what pixels with ALPHA look like over white."""
    return np.where(ALPHA[..., None] == 255, pixels, 255).astype(np.uint8)


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def by_pillow(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def by_opencv(kind: str, array: NDArray[Any]) -> bytes:
    """Encodes grey, RGB or RGBA pixels with OpenCV."""
    swapped = array if array.ndim == 2 else array[..., [2, 1, 0, 3][: array.shape[2]]]
    return cv2.imencode(kind, swapped)[1].tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(depth: int, kind: int, rows: list[bytes], *more: tuple[bytes, bytes], width: int) -> bytes:
    """Returns a PNG with these packed rows, unfiltered, and more chunks before them."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*one) for one in more), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


def deep_tiffs() -> dict[str, File]:
    """16-bit colour and grey in every order, layout and compression."""
    files: dict[str, File] = {}
    deep = RGB.astype(np.uint16) * 256 + 9
    for order in "<>":
        for compression in (None, "zlib", "lzw", "packbits", "lzma"):
            for predictor in (False, True) if compression in ("zlib", "lzw") else (False,):
                for tile in (None, (16, 16), (32, 16)):
                    options = {"byteorder": order, "compression": compression, "predictor": predictor, "tile": tile}
                    name = f"{order} {compression or 'plain'}{' predicted' * predictor} {tile or 'strips'}"
                    files[f"tiff rgb16 {name}"] = tiff(deep, photometric="rgb", **options), RGB
                    planes = np.moveaxis(deep, 2, 0).copy()
                    planar = tiff(planes, photometric="rgb", planarconfig="separate", **options)
                    files[f"tiff rgb16 planar {name}"] = planar, RGB
                    files[f"tiff grey16 {name}"] = tiff(deep[..., 0], photometric="minisblack", **options), shown(GREY)
        options = {"byteorder": order, "photometric": "minisblack"}
        wide = GREY.astype(np.int64)
        one: dict[str, NDArray[Any]] = {
            "signed, all of it": (wide * 256 - 32768).astype(np.int16),
            "signed, no negative": (wide * 128 + 5).astype(np.int16),
            "10 bits in 16": (wide * 4).astype(np.uint16),
            "12 bits in 16": (wide * 16).astype(np.uint16),
            "14 bits in 16": (wide * 64).astype(np.uint16),
            "12 bits in signed 16, from -1024": (wide * 16 - 1024).astype(np.int16),
            "signed 8": (wide - 128).astype(np.int8),
            "int32 of 8 bits": wide.astype(np.int32),
            "int32 of 16 bits": (wide * 256).astype(np.int32),
            "uint32": (wide << 24).astype(np.uint32),
            "float 0 to 1": (wide / 255).astype(np.float32),
            "float 0 to 255": wide.astype(np.float64),
            "float16": (wide / 255).astype(np.float16),
            "float, -3 to 1782": wide.astype(np.float32) * 7 - 3,
        }
        for name, array in one.items():
            files[f"tiff {name} {order}"] = tiff(array, **options), shown(GREY)
        unlit = tiff((1 - RGB / 255).astype(np.float32), byteorder=order, compression="zlib", predictor=True)
        files[f"tiff float rgb, predictor 3 {order}"] = unlit, 255 - RGB
        inverted = tiff(65535 - deep[..., 0], byteorder=order, photometric="miniswhite")
        files[f"tiff 16-bit, 0 is white {order}"] = inverted, shown(GREY)
        alpha = np.dstack([deep, ALPHA.astype(np.uint16) * 257])
        transparent = tiff(alpha, byteorder=order, photometric="rgb", extrasamples=["unassalpha"])
        files[f"tiff rgba16 {order}"] = transparent, over_white(RGB)
        associated = np.where(ALPHA[..., None] == 0, 0, alpha[..., :3])
        associated = np.dstack([associated, alpha[..., 3]])
        premultiplied = tiff(associated, byteorder=order, photometric="rgb", extrasamples=["assocalpha"])
        files[f"tiff rgba16, premultiplied {order}"] = premultiplied, over_white(RGB)
        infrared = tiff(np.dstack([deep, deep[..., :1]]), photometric="rgb", extrasamples=["unspecified"])
        files[f"tiff rgb16 and infrared {order}"] = infrared, RGB
    files["tiff, 12 bits a sample"] = twelve_bits(), shown(GREY)
    files["bigtiff"] = tiff(deep, photometric="rgb", bigtiff=True), RGB
    nan = (GREY / 255).astype(np.float32)
    nan[3, 3] = np.nan
    black = GREY.copy()
    black[3, 3] = 0
    files["tiff float with NaN"] = tiff(nan, photometric="minisblack"), shown(black)
    return files


def twelve_bits() -> bytes:
    """Returns a TIFF with packed samples of 12 bits, whose upper 8 bits are GREY; each row is padded to a byte."""
    samples = np.pad(GREY.astype(np.uint16) * 16 + 5, ((0, 0), (0, 1)))
    bits = (samples[..., None] >> np.arange(11, -1, -1)) & 1
    rows = np.packbits(bits.reshape(len(samples), -1).astype(np.uint8), axis=1)[:, : (63 * 12 + 7) // 8]
    body = rows.tobytes()
    entries = [(256, 63), (257, 45), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 45), (279, len(body))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    place = 8 + len(body) + len(body) % 2
    return struct.pack("<2sHI", b"II", 42, place) + body.ljust(place - 8) + struct.pack("<H", 9) + directory + bytes(4)


def pngs() -> dict[str, File]:
    deep = RGB.astype(np.uint16) * 256 + 9
    alpha16 = ALPHA.astype(np.uint16) * 257
    grey16 = [bytes(row) for row in deep[..., 0].astype(">u2").view(np.uint8)]
    key = GREY == 255
    transparent = (b"tRNS", struct.pack(">H", 255 * 256 + 9))
    halves = np.dstack([deep[..., 0], alpha16]).astype(">u2").reshape(45, -1)
    return {
        "png grey16": (by_opencv(".png", deep[..., 0].copy()), shown(GREY)),
        "png rgb16": (by_opencv(".png", deep), RGB),
        "png rgba16": (by_opencv(".png", np.dstack([deep, alpha16])), over_white(RGB)),
        "png grey16 with alpha": (
            png(16, 4, [row.tobytes() for row in halves], width=63),
            over_white(shown(GREY)),
        ),
        "png 12 bits in rgb16": (by_opencv(".png", RGB.astype(np.uint16) * 16), RGB),
        "png grey16 with a transparent level": (png(16, 0, grey16, transparent, width=63), shown(GREY)),
        "png grey16, transparent level in the middle": (
            png(16, 0, grey16, (b"tRNS", struct.pack(">H", int(GREY[20, 20]) * 256 + 9)), width=63),
            shown(np.where(GREY[20, 20] == GREY, 255, GREY)),
        ),
        "png 2 bits with a transparent level": (
            png(2, 0, [bytes([0b00011011])], (b"tRNS", b"\0\1"), width=4),
            shown(np.array([[0, 255, 170, 255]])),
        ),
        "png 4 bits with a transparent level": (
            png(4, 0, [bytes([0x3A])], (b"tRNS", b"\0\3"), width=2),
            shown(np.array([[255, 170]])),
        ),
        "png rgb with a transparent colour": (
            png(8, 2, [bytes([1, 2, 3, 4, 5, 6])], (b"tRNS", bytes([0, 1, 0, 2, 0, 3])), width=2),
            np.array([[[255, 255, 255], [4, 5, 6]]], np.uint8),
        ),
        "png with cICP, gAMA and a wrong checksum in a text": (
            png(8, 0, [bytes(row) for row in GREY], (b"cICP", b"\x09\x10\0\1"), (b"gAMA", b"\0\0\xb1\x8f"), width=63)[
                :-12
            ]
            + chunk(b"tEXt", b"a\0b")[:-1]
            + b"?"
            + chunk(b"IEND", b""),
            shown(GREY),
        ),
        "png of all levels but the transparent": (png(16, 0, grey16, width=63), shown(np.where(key, 255, GREY))),
    }


def ordinary() -> dict[str, File]:
    """Returns files of formats with 8 bits. The pixels of lossy ones are those that Pillow decodes."""
    image = Image.fromarray(RGB)
    second = Image.fromarray(255 - RGB)
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    palette = image.quantize(16)
    files: dict[str, File] = {
        "bmp": (by_opencv(".bmp", RGB), RGB),
        "ppm": (by_opencv(".ppm", RGB), RGB),
        "pgm": (by_opencv(".pgm", GREY), shown(GREY)),
        "ppm16": (by_opencv(".ppm", RGB.astype(np.uint16) * 256 + 9), RGB),
        "pgm16": (by_opencv(".pgm", GREY.astype(np.uint16) * 256 + 9), shown(GREY)),
        "pgm of 12 bits": (b"P5 63 45 4095\n" + (GREY.astype(np.uint16) * 16).astype(">u2").tobytes(), shown(GREY)),
        "pbm": (by_pillow(Image.fromarray(GREY > 99), "PPM"), shown(np.where(GREY > 99, 255, 0))),
        "pfm": (b"Pf\n63 45\n-1\n" + (GREY[::-1] / 255).astype("<f4").tobytes(), shown(GREY)),
        "dib": (by_opencv(".bmp", RGB)[14:], RGB),
        "tga": (by_pillow(image, "TGA"), RGB),
        "tga, compressed, with alpha": (by_pillow(rgba, "TGA", compression="tga_rle"), over_white(RGB)),
        "gif": (by_pillow(palette, "GIF", save_all=True, append_images=[second]), np.array(palette.convert("RGB"))),
        "ico": (by_pillow(image, "ICO", sizes=[(16, 16), (63, 45), (32, 32)]), RGB),
        "ico of a bitmap": (by_pillow(rgba, "ICO", sizes=[(63, 45)], bitmap_format="bmp"), over_white(RGB)),
        "jpeg 2000": (by_pillow(image, "JPEG2000"), RGB),
        "jpeg 2000 grey16": (
            by_pillow(Image.fromarray(GREY.astype(np.uint16) * 256), "JPEG2000"),
            shown(GREY),
        ),
        "webp": (by_pillow(rgba, "WEBP", lossless=True, exact=True), over_white(RGB)),
        "animated webp": (by_pillow(image, "WEBP", lossless=True, save_all=True, append_images=[second]), RGB),
        "apng": (by_pillow(image, "PNG", save_all=True, append_images=[second]), RGB),
        "palette with alpha": (
            by_pillow(rgba.quantize(32), "PNG"),
            np.array(Image.alpha_composite(Image.new("RGBA", (63, 45), "white"), rgba.quantize(32).convert("RGBA")))[
                ..., :3
            ],
        ),
        "tiff pages": (by_pillow(image, "TIFF", save_all=True, append_images=[second]), RGB),
        "tiff, 0 is white": (tiff(255 - GREY, photometric="miniswhite"), shown(GREY)),
        "tiff cmyk": (by_pillow(image.convert("CMYK"), "TIFF"), np.array(image.convert("CMYK").convert("RGB"))),
        "tiff palette and alpha": (by_pillow(palette.convert("PA"), "TIFF"), np.array(palette.convert("RGB"))),
    }
    for name, form, options in (
        ("jpeg", "JPEG", {}),
        ("mpo", "MPO", {"save_all": True, "append_images": [second]}),
        ("avif", "AVIF", {}),
    ):
        data = by_pillow(image, form, **options)
        files[name] = data, np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    return files


def turned() -> dict[str, File]:
    """Returns files with orientations: that of EXIF is applied, that of XMP and invalid ones are ignored."""
    image = Image.fromarray(RGB)
    files: dict[str, File] = {}
    for orientation, pixels in {
        3: RGB[::-1, ::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        8: np.rot90(RGB),
        9: RGB,
        0: RGB,
    }.items():
        for form in ("PNG", "WEBP", "TIFF"):
            options = {"lossless": True} if form == "WEBP" else {}
            data = by_pillow(image, form, exif=exif(orientation), **options)
            files[f"{form.lower()}, turned {orientation}"] = data, np.ascontiguousarray(pixels)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    files["tiff with XMP"] = by_pillow(image, "TIFF", tiffinfo={700: xmp}), RGB
    text = (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    files["png with XMP"] = png(8, 2, [row.tobytes() for row in RGB], text, width=63), RGB
    files["webp with XMP"] = by_pillow(image, "WEBP", lossless=True, xmp=xmp), RGB
    deep = tiff(RGB.astype(np.uint16) * 256, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    files["tiff rgb16, turned 6"] = deep, np.ascontiguousarray(np.rot90(RGB, -1))
    return files


def profile(space: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()  # type: ignore[arg-type]


def all_files() -> dict[str, File]:
    """Returns the corpus by name."""
    return {**ordinary(), **deep_tiffs(), **pngs(), **turned()}


def slow_bmp(rows: int) -> bytes:
    """Returns a BMP of runs of one pixel, for whose megabytes the decoder takes seconds."""
    width = 1000
    body = (b"\1\7" * width + b"\0\0") * rows
    header = struct.pack("<IiiHHIIiiII", 40, width, rows, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 14 + 40 + 1024 + len(body), 0, 0, 1078) + header + bytes(1024) + body
