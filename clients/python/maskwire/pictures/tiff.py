"""Decodes TIFF. Pillow parses the tags and decodes up to 8 bits a sample; deeper samples are assembled here.

Pillow decodes few types of deep samples, and some of them wrongly, but it decompresses the strips and tiles of all of
them. So a deep picture is declared to Pillow as an 8-bit grey one whose pixels are the bytes of the samples.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from maskwire.pictures.decoded import Decoded
from maskwire.pictures.errors import too_costly, unreadable
from maskwire.pictures.levels import Levels
from maskwire.pictures.libtiff import silence_libtiff
from maskwire.pictures.limits import Limits
from maskwire.pictures.orientation import valid_or_1
from maskwire.pictures.predictors import undo_predictor
from maskwire.pictures.tiff_header import read_directory
from maskwire.pictures.tiff_writer import write_tiff

_UINT, _INT, _FLOAT = 1, 2, 3
_TYPES = {
    (_UINT, 8): "u1",
    (_UINT, 16): "u2",
    (_UINT, 32): "u4",
    (_INT, 8): "i1",
    (_INT, 16): "i2",
    (_INT, 32): "i4",
    (_FLOAT, 16): "f2",
    (_FLOAT, 32): "f4",
    (_FLOAT, 64): "f8",
}
_PACKED_BITS = range(9, 16)  # unsigned samples that are stored without padding between them
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_PHOTOMETRIC = {3: "a palette", 4: "a transparency mask", 6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
_BYTE_COMPRESSIONS = (1, 5, 8, 32773, 32946, 34925, 50000)
"""Compressions of bytes, whatever the samples' type: none, LZW, deflate, PackBits, deflate, LZMA, Zstandard."""
_OTHER_COMPRESSIONS = {6: "JPEG", 7: "JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC"}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MAX_SAMPLES = 1024
_SIZE_TAGS = Tag.ImageWidth, Tag.ImageLength, Tag.TileWidth, Tag.TileLength
_TILE_TIMES = 4  # a tile is decoded whole; this many times the picture is more than rounding up takes
_MIN_TILE_LIMIT = 4096 * 4096


class _File(TiffImagePlugin.TiffImageFile):
    """A TIFF file whose size has been checked. Pillow's own limit is bypassed: its pixels may be single bytes here."""

    def load_prepare(self) -> None:
        """Allocates the image without `Image.new`'s check for decompression bombs."""
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size).im
        ImageFile.ImageFile.load_prepare(self)


@dataclass
class _Layout:
    """How the samples of the first picture are stored in the file."""

    width: int  # width in pixels, before orientation is applied
    height: int  # height in pixels, before orientation is applied
    samples: int  # samples a pixel, including extra ones
    bits: int  # bits a sample
    form: int  # value of the tag SampleFormat: 1 unsigned, 2 signed, 3 floating point
    photometric: int  # value of the tag PhotometricInterpretation
    extra: tuple[int, ...]  # values of the tag ExtraSamples, one for each sample beyond the colours
    is_planar: bool  # whether each channel is stored separately
    compression: int  # value of the tag Compression


def decode_tiff(data: bytes, limits: Limits) -> Decoded:
    """Decodes the first picture of a TIFF file.

    Raises:
        PictureError: The file is damaged, of an unsupported kind, or larger than the limits.
    """
    silence_libtiff()
    _check_bounds(data)
    tags = _parse_tags(data)
    _refuse_raw(tags)
    layout = _layout_of(tags)
    limits.check(layout.width, layout.height)
    orientation = valid_or_1(tags.get(Tag.Orientation))
    profile = tags.get(Tag.InterColorProfile)
    profile = profile if isinstance(profile, bytes) else None
    if layout.bits <= 8 and layout.form == _UINT:
        image = _File(io.BytesIO(data), "")
        # Otherwise Pillow would apply the orientation itself, including that of XMP.
        image.getexif().pop(Tag.Orientation, None)
        _load(image)
        return Decoded(image=image, orientation=orientation, profile=profile)
    decoded = _decode_deep(data, tags, layout, limits)
    decoded.orientation, decoded.profile = orientation, profile
    return decoded


def _check_bounds(data: bytes) -> None:
    """Refuses tags and tiles that take memory out of proportion to the picture.

    Raises:
        PictureError: IMAGE_TOO_COSTLY.
    """
    if data[:4] == b"MM\0+":
        return  # refused by `_parse_tags`
    try:
        tags = read_directory(data)
        width, height, tile_width, tile_height = (tags.first(tag, 0) for tag in _SIZE_TAGS)
    except struct.error:
        return  # damaged; its decoder says how
    if tile_width * tile_height > max(_MIN_TILE_LIMIT, _TILE_TIMES * width * height):
        raise too_costly(
            f"the TIFF file has tiles of {tile_width}x{tile_height} pixels for a picture of {width}x{height}"
        )


def _parse_tags(data: bytes) -> dict[int, Any]:
    if data[:4] == b"MM\0+":
        raise unreadable("the file is a big-endian BigTIFF; save it as TIFF, or as a little-endian BigTIFF")
    head = io.BytesIO(data)
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
    head.seek(directory.next)
    directory.load(head)
    return dict(directory)


def _refuse_raw(tags: dict[int, Any]) -> None:
    """Refuses cameras' raw files, many of which are TIFF files whose first picture is a small preview."""
    if Tag.DNGVersion in tags:
        raise unreadable("the file is a camera's raw file (DNG); develop it, and send a JPEG, PNG or TIFF")
    if int(tags.get(Tag.NewSubfileType, 0)) & 1 and Tag.SubIFDs in tags:
        raise unreadable(
            "the file begins with a preview, as a camera's raw file (NEF, ARW) does; develop it, and send a JPEG, PNG "
            "or TIFF"
        )


def _layout_of(tags: dict[int, Any]) -> _Layout:
    width, height = tags.get(Tag.ImageWidth), tags.get(Tag.ImageLength)
    if not isinstance(width, int) or not isinstance(height, int):
        raise unreadable("the TIFF file is damaged: it states no size")
    compression = int(tags.get(Tag.Compression, 1))
    bits = tuple(tags.get(Tag.BitsPerSample, (1,)))
    forms = tuple(tags.get(Tag.SampleFormat, (_UINT,)))
    photometric = int(tags.get(Tag.PhotometricInterpretation, _WHITE_IS_ZERO))
    samples = int(tags.get(Tag.SamplesPerPixel, 3 if compression in (6, 7) and photometric in (_RGB, 6) else 1))
    if not 1 <= samples <= _MAX_SAMPLES or not bits or not forms:
        raise unreadable(f"the TIFF file states {samples} samples a pixel of {bits} bits")
    bits, forms = bits[:samples], forms[:samples]
    if len(set(bits)) > 1 or len(set(forms)) > 1:
        raise unreadable(
            f"the TIFF file has samples of different types ({', '.join(map(str, bits))} bits); "
            "save it with one type, such as 8 or 16 bits a sample"
        )
    # 4 means undefined; older programs write it for unsigned samples.
    return _Layout(
        width=width,
        height=height,
        samples=samples,
        bits=bits[0],
        form=_UINT if forms[0] == 4 else forms[0],
        photometric=photometric,
        extra=tuple(tags.get(Tag.ExtraSamples, ())),
        is_planar=int(tags.get(Tag.PlanarConfiguration, 1)) == 2 and samples > 1,
        compression=compression,
    )


def _decode_deep(data: bytes, tags: dict[int, Any], layout: _Layout, limits: Limits) -> Decoded:
    """Decodes a picture with other samples than unsigned ones of up to 8 bits."""
    is_packed = layout.form == _UINT and layout.bits in _PACKED_BITS
    code = _TYPES.get((layout.form, layout.bits))
    if code is None and not is_packed:
        kind = {_INT: "signed", _FLOAT: "floating-point", 5: "complex", 6: "complex"}.get(layout.form, "unsigned")
        raise unreadable(
            f"the TIFF file has {kind} samples of {layout.bits} bits, which are not supported; "
            "save it with 8, 16 or 32 bits a sample"
        )
    if layout.compression not in _BYTE_COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(layout.compression, f"kind {layout.compression}")
        raise unreadable(
            f"the TIFF file has {layout.bits} bits a sample and is compressed as {name}; "
            "save it uncompressed, or with LZW or deflate"
        )
    colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}.get(layout.photometric)
    if colours is None or layout.samples < colours:
        name = _PHOTOMETRIC.get(layout.photometric, f"photometric interpretation {layout.photometric}")
        raise unreadable(
            f"the TIFF file has {layout.bits} bits a sample and {name} with {layout.samples} samples a pixel; "
            "save it as grey or RGB, or with 8 bits a sample"
        )
    limits.check_bytes(layout.width * layout.height * layout.samples * max(2, layout.bits // 8))
    big_endian = data[:2] == b"MM"
    dtype = np.dtype("u2" if code is None else code)
    samples = _decode_samples(data, tags, layout, dtype, big_endian)
    extra = layout.extra or ((_UNASSOCIATED,) if layout.photometric == _RGB and layout.samples == 4 else ())
    alpha = None
    picture = samples[..., :colours] if colours > 1 else samples[..., 0]
    if layout.samples > colours and extra[:1] in ((_ASSOCIATED,), (_UNASSOCIATED,)):
        alpha = samples[..., colours]
        if extra[0] == _ASSOCIATED:
            picture = _unpremultiplied(picture, alpha)
    white = (1 << layout.bits) - 1 if is_packed else None
    if layout.photometric == _CMYK:
        if dtype != np.uint16:
            raise unreadable(f"the TIFF file is CMYK of {layout.bits} bits a sample; save it with 8 or 16, or as RGB")
        inks = (picture >> (layout.bits - 8 if is_packed else 8)).astype(np.uint8)
        return Decoded(image=Image.fromarray(np.ascontiguousarray(inks), "CMYK"))
    return Decoded(levels=Levels(picture, white, layout.photometric == _WHITE_IS_ZERO), alpha=alpha)


def _decode_samples(
    data: bytes, tags: dict[int, Any], layout: _Layout, dtype: np.dtype[Any], big_endian: bool
) -> NDArray[Any]:
    """Decodes samples to HxWxS; of a planar file, at most the first four channels."""
    stored = 1 if layout.is_planar else layout.samples
    planes = []
    for plane in range(min(4, layout.samples) if layout.is_planar else 1):  # further channels are not used
        rows, block = _decompress(data, tags, layout, plane)
        predictor = int(tags.get(Tag.Predictor, 1))
        if layout.compression in (1, 32773):
            predictor = 1  # libtiff, too, ignores the tag for these compressions
        if layout.bits in _PACKED_BITS:
            if predictor != 1:
                raise unreadable(f"the TIFF file has {layout.bits} bits a sample with a predictor; save it without")
            values = _unpack_bits(rows, layout.bits)
        else:
            values = undo_predictor(rows, dtype, big_endian, predictor, stored, block * stored)
        planes.append(values[:, : layout.width * stored].reshape(layout.height, layout.width, stored))
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


def _decompress(data: bytes, tags: dict[int, Any], layout: _Layout, plane: int) -> tuple[NDArray[np.uint8], int]:
    """Decompresses the strips or tiles of a plane.

    Returns:
        HxB, the bytes of each row, and the width of a strip or tile in pixels, at which prediction starts again.
    """
    is_tiled = Tag.TileOffsets in tags
    block = int(tags.get(Tag.TileWidth, 0)) if is_tiled else layout.width
    block_height = int(tags.get(Tag.TileLength, 0)) if is_tiled else int(tags.get(Tag.RowsPerStrip, 2**32 - 1))
    if block <= 0 or block_height <= 0:
        raise unreadable("the TIFF file is damaged: its tiles have no size")
    across, down = -(-layout.width // block), -(-layout.height // block_height)
    places = tuple(tags.get(Tag.TileOffsets if is_tiled else Tag.StripOffsets, ()))
    sizes = tuple(tags.get(Tag.TileByteCounts if is_tiled else Tag.StripByteCounts, ()))
    first, last = plane * across * down, (plane + 1) * across * down
    if len(places) < last or len(sizes) < last:
        raise unreadable("the TIFF file is damaged or incomplete: strips or tiles are missing")
    if any(place + size > len(data) for place, size in zip(places[first:last], sizes[first:last], strict=True)):
        raise unreadable("the TIFF file is damaged or incomplete: strips or tiles extend past its end")
    row_bits = block * (1 if layout.is_planar else layout.samples) * layout.bits
    row_bytes = -(-row_bits // 8)
    declared: dict[Tag, int | Sequence[int]] = {
        Tag.ImageWidth: row_bytes * across,
        Tag.ImageLength: layout.height,
        Tag.BitsPerSample: 8,
        Tag.Compression: layout.compression,
        Tag.PhotometricInterpretation: _BLACK_IS_ZERO,
        Tag.FillOrder: int(tags.get(Tag.FillOrder, 1)),
        Tag.SamplesPerPixel: 1,
        Tag.TileOffsets if is_tiled else Tag.StripOffsets: places[first:last],
        Tag.TileByteCounts if is_tiled else Tag.StripByteCounts: sizes[first:last],
    }
    if is_tiled:
        declared |= {Tag.TileWidth: row_bytes, Tag.TileLength: block_height}
    else:
        declared |= {Tag.RowsPerStrip: min(block_height, layout.height)}
    image = _File(io.BytesIO(write_tiff(data, declared)), "")
    _load(image)
    return np.asarray(image), block


def _load(image: ImageFile.ImageFile) -> None:
    try:
        image.load()
    except OSError as error:
        if str(error).startswith("decoder error"):  # libtiff writes details to standard error only
            raise unreadable("the TIFF file is damaged or incomplete: its strips cannot be decompressed") from error
        raise


def _unpack_bits(rows: NDArray[np.uint8], bits: int) -> NDArray[np.uint16]:
    """Unpacks samples that are stored without padding between them, the most significant bit first."""
    count = rows.shape[1] * 8 // bits
    samples = np.empty((rows.shape[0], count), np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint16)
    for row in range(rows.shape[0]):  # a row at a time, since unpacked bits take eight times the memory
        ones = np.unpackbits(rows[row])[: count * bits].reshape(count, bits)
        samples[row] = ones @ weights
    return samples


def _unpremultiplied(colours: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Divides premultiplied colours by their alpha."""
    largest = 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)
    shares = alpha.astype(np.float64) / largest
    shares = shares if colours.ndim == 2 else shares[..., None]
    restored: NDArray[Any] = np.divide(colours, shares, out=np.zeros(colours.shape), where=shares > 0)
    if colours.dtype.kind != "f":
        restored = restored.round().clip(0, np.iinfo(colours.dtype).max)
    return restored.astype(colours.dtype)
