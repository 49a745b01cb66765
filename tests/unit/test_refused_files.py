"""Damaged pictures and rare kinds: what is wrong with them is said in words, or they are read all the same."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from maskwire.pictures import PictureError, decode_picture
from maskwire.pictures.errors import decoder_message
from maskwire.pictures.orientation import from_exif
from maskwire.pictures.predictors import undo_predictor

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS, _SAMPLES = 256, 257, 258, 259, 262, 273, 277
_STRIP_BYTES, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _FORM = 279, 317, 322, 323, 324, 339


def tiff(body: bytes = bytes(64), *, without: tuple[int, ...] = (), **changed: tuple[int, ...]) -> bytes:
    """A TIFF file of 2x1 grey pixels of 16 bits, other than its tags are changed (`t` and the tag's number)."""
    tags: dict[int, tuple[int, ...]] = {
        _WIDTH: (2,),
        _HEIGHT: (1,),
        _BITS: (16,),
        _COMPRESSION: (1,),
        _PHOTOMETRIC: (1,),
        _SAMPLES: (1,),
        _STRIP_BYTES: (len(body),),
    }
    tags |= {int(name[1:]): values for name, values in changed.items()}
    tags[_STRIPS] = (0,)
    tags = {tag: values for tag, values in tags.items() if tag not in without}
    after = 8 + 2 + 12 * len(tags) + 4
    long = b"".join(struct.pack(f"<{len(values)}I", *values) for values in tags.values() if len(values) > 1)
    if _STRIPS in tags:
        tags[_STRIPS] = (after + len(long),)
    entries, place = b"", after
    for tag, values in sorted(tags.items()):
        entries += struct.pack("<HHII", tag, 4, len(values), values[0] if len(values) == 1 else place)
        place += 4 * len(values) if len(values) > 1 else 0
    long = b"".join(struct.pack(f"<{len(values)}I", *values) for _, values in sorted(tags.items()) if len(values) > 1)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + long + body


def png(kind: int, depth: int, *chunks: tuple[bytes, bytes], width: int = 1) -> bytes:
    """A PNG file with one row of zeros."""
    header = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(1 + 8 * max(1, width)))), (b"IEND", b"")]
    written = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


REFUSED: dict[str, bytes] = {
    "a video (QuickTime)": b"\0\0\0\x08moov" + bytes(20),
    "a tar archive": bytes(257) + b"ustar" + bytes(20),
    "a Windows cursor": b"\0\0\2\0\1\0" + bytes(20),
    "raw file (CR3)": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
    "an M4A audio file": b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "base64 text": b"iVBORw0KGgo" * 8,
    "a RIFF file that is no picture": b"RIFF\0\0\0\0ACON" + bytes(20),
    "the ICO file has no pictures": b"\0\0\1\0\0\0",
    "a big-endian BigTIFF": b"MM\0+" + bytes(20),
    "it states no size": tiff(without=(_WIDTH,)),
    "0 samples a pixel": tiff(t277=(0,)),
    "samples of different types (8, 16 bits)": tiff(t258=(8, 16), t277=(2,)),
    "signed samples of 24 bits": tiff(t258=(24,), t339=(2,)),
    "complex samples of 64 bits": tiff(t258=(64,), t339=(6,)),
    "16 bits a sample and is compressed as JPEG": tiff(t259=(7,)),
    "16 bits a sample and is compressed as kind 9": tiff(t259=(9,)),
    "16 bits a sample and CIELab": tiff(t262=(8,), t277=(3,)),
    "16 bits a sample and photometric interpretation 99": tiff(t262=(99,)),
    "CMYK of 32 bits": tiff(t258=(32, 32, 32, 32), t262=(5,), t277=(4,)),
    "12 bits a sample with a predictor": tiff(zlib.compress(bytes(3)), t258=(12,), t259=(8,), t317=(2,)),
    "predictor 9": tiff(zlib.compress(bytes(4)), t259=(8,), t317=(9,)),
    "its tiles have no size": tiff(t322=(0,), t323=(16,), t324=(8,)),
    "strips or tiles are missing": tiff(without=(_STRIPS,)),
    "strips or tiles extend past its end": tiff(t279=(10_000,)),
    "its strips cannot be decompressed": tiff(b"no deflate", t259=(8,)),
    "it has no palette": png(3, 8),
    "3 bits a sample for colour type 2": png(2, 3),
    "a size of 0x1 pixels": png(2, 8, width=0),
}


@pytest.mark.parametrize("said", REFUSED)
def test_files_are_refused_with_what_is_wrong(said: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode_picture(REFUSED[said])
    assert caught.value.reason == "IMAGE_UNREADABLE"
    assert said in caught.value.message


def test_a_tiff_file_of_16_bits_is_read() -> None:
    """As the one that the refused ones are made from."""
    picture = decode_picture(tiff(struct.pack("<2H", 0, 65535)))
    assert picture.pixels.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_of_16_bits_is_that_of_8() -> None:
    inks = np.array([[255, 10, 0, 20], [0, 200, 30, 0]], np.uint8)
    deep, plain = (
        tiff((inks.astype(np.uint16) * factor).astype(kind).tobytes(), t258=(bits,) * 4, t262=(5,), t277=(4,))
        for factor, kind, bits in ((257, "<u2", 16), (1, "u1", 8))
    )
    np.testing.assert_array_equal(decode_picture(deep).pixels, decode_picture(plain).pixels)


@pytest.mark.parametrize("extra", [(b"iCCP", b"name\0\0no deflate"), (b"tRNS", b"\0"), (b"eXIf", b"no EXIF")])
def test_what_a_picture_does_not_depend_on_may_be_damaged(extra: tuple[bytes, bytes]) -> None:
    assert decode_picture(png(2, 8, extra)).pixels.tolist() == [[[0, 0, 0]]]


def test_damaged_exif_turns_nothing() -> None:
    assert from_exif(b"Exif\0\0II*\0\xff\xff\xff\xff") == 1


def test_memory_that_does_not_suffice_is_named() -> None:
    assert decoder_message(MemoryError()) == "it does not fit into memory"


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_the_predictor_of_floating_point_samples(kind: str) -> None:
    """By its definition in Adobe's technical note 3: bytes of all samples, highest first, as differences."""
    values = np.random.default_rng(1).normal(0, 9, (3, 6, 2)).astype(kind)  # rows, pixels, channels
    rows: list[Any] = []
    for row in values.astype(f">{kind}"):
        planes = row.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T.reshape(-1)
        before = np.concatenate([np.zeros(2, np.uint8), planes[:-2]])
        rows.append(planes - before)
    undone = undo_predictor(np.array(rows), np.dtype(kind), False, 3, 2, 12)
    np.testing.assert_array_equal(undone, values.reshape(3, 12))
