"""Encodes arrays as image files without loss."""

import io
import zlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base as Tag

from maskwire.pictures.errors import PictureError, decoder_message
from maskwire.pictures.tiff_writer import write_tiff
from maskwire.suggest import no_such

Channels = Literal["rgb", "bgr"]
"""Order of an array's colour channels; alpha is last in both."""

_SHAPES = "give HxW, HxWx1 (grey), HxWx2 (grey, alpha), HxWx3 (RGB) or HxWx4 (RGBA)"
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}  # NumPy's kinds as values of TIFF's SampleFormat
_DEFLATE = 8


def is_array(image: object) -> bool:
    """Returns whether an object is a NumPy array, a torch tensor, or anything else that NumPy can convert."""
    return isinstance(image, np.ndarray) or hasattr(image, "__array__") or _is_tensor(image)


def check_channels(channels: str) -> None:
    """Checks the name of a channel order.

    Raises:
        PictureError: BAD_CHANNELS: it is not one of `Channels`.
    """
    if channels not in get_args(Channels):
        raise PictureError("BAD_CHANNELS", no_such("order of channels", channels, get_args(Channels)))


def from_array(image: Any, channels: Channels = "rgb") -> bytes:
    """Encodes an array as PNG if it has 8 bits a sample, else as TIFF.

    Args:
        image: Array or tensor of any real type, HxW, HxWx1, HxWx2, HxWx3 or HxWx4; channels may come first where that
            is unambiguous. In a torch tensor they come first unless only the last axis can be channels.
        channels: Order of the colour channels.

    Raises:
        PictureError: BAD_CHANNELS, or BAD_IMAGE: the shape or type is unsupported, there are no pixels, or the axis of
            the channels is ambiguous.
    """
    check_channels(channels)
    is_tensor = _is_tensor(image)
    samples = _with_channels_last(_from_tensor(image) if is_tensor else _to_storable(image), is_tensor)
    if channels == "bgr" and samples.ndim == 3 and samples.shape[2] >= 3:
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    return as_png(samples) if samples.dtype == np.uint8 else as_tiff(samples)


def as_png(samples: NDArray[np.uint8]) -> bytes:
    """Encodes 8-bit samples, HxW or HxWxC with up to 4 channels, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(samples)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def as_tiff(samples: NDArray[Any]) -> bytes:
    """Encodes samples of any type that TIFF has, HxW or HxWxC with up to 4 channels. The 2nd of 2 channels and the 4th
    of 4 are alpha."""
    height, width, count = samples.shape if samples.ndim == 3 else (*samples.shape, 1)
    stored = np.ascontiguousarray(samples).astype(samples.dtype.newbyteorder("<"), copy=False)
    body = zlib.compress(stored.data, 1)
    alpha: dict[Tag, int | Sequence[int]] = {Tag.ExtraSamples: 2} if count in (2, 4) else {}
    return write_tiff(
        bytes(8) + body,
        {
            Tag.ImageWidth: width,
            Tag.ImageLength: height,
            Tag.BitsPerSample: [8 * samples.dtype.itemsize] * count,
            Tag.Compression: _DEFLATE,
            Tag.PhotometricInterpretation: 1 if count < 3 else 2,
            Tag.StripOffsets: 8,
            Tag.SamplesPerPixel: count,
            Tag.RowsPerStrip: height,
            Tag.StripByteCounts: len(body),
            Tag.SampleFormat: [_SAMPLE_FORMATS[samples.dtype.kind]] * count,
            **alpha,
        },
    )


def _is_tensor(image: object) -> bool:
    """Returns whether an object is a torch tensor, without importing torch."""
    return any(kind.__module__.split(".")[0] == "torch" for kind in type(image).__mro__)


def _from_tensor(image: Any) -> NDArray[Any]:
    tensor = image.detach().cpu()
    try:
        return _to_storable(tensor.numpy())
    except TypeError:  # bfloat16, which NumPy does not have
        return _to_storable(tensor.float().numpy())


def _to_storable(image: Any) -> NDArray[Any]:
    """Converts to an array of the closest type that PNG or TIFF can store."""
    try:
        array = np.asarray(image)
    except Exception as error:  # whatever the object's own __array__ raises
        raise PictureError("BAD_IMAGE", f"the array cannot be read: {decoder_message(error)}") from error
    dtype = array.dtype.newbyteorder("=")
    if dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if dtype.kind not in _SAMPLE_FORMATS:
        raise PictureError("BAD_IMAGE", f"an array of {array.dtype}; give integers, floating point or bool")
    if dtype.kind == "f":
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64 if dtype.itemsize > 8 else dtype)
    elif dtype.itemsize == 8 and array.size:
        narrow = np.dtype(f"{dtype.kind}4")
        limits = np.iinfo(narrow)
        fits = limits.min <= int(array.min()) and int(array.max()) <= limits.max
        dtype = narrow if fits else np.dtype(np.float64)
    return array.astype(dtype, copy=False)


def _with_channels_last(array: NDArray[Any], is_tensor: bool) -> NDArray[Any]:
    """Moves the channels to the last axis, and removes that axis if it has length 1."""
    if array.ndim not in (2, 3):
        hint = "; take one image of the batch" if array.ndim == 4 else ""
        raise PictureError("BAD_IMAGE", f"an array of shape {array.shape}{hint}; {_SHAPES}")
    if array.size == 0:
        raise PictureError("BAD_IMAGE", f"an array of shape {array.shape} has no pixels")
    if array.ndim == 3:
        first, last = array.shape[0] in (1, 2, 3, 4), array.shape[2] in (1, 2, 3, 4)
        if not first and not last:
            raise PictureError("BAD_IMAGE", f"an array of shape {array.shape} has no axis of channels; {_SHAPES}")
        if is_tensor and first and last:
            raise PictureError(
                "BAD_IMAGE",
                f"a tensor of shape {tuple(array.shape)} may have its channels first or last; "
                "give a NumPy array with channels last",
            )
        if not last:
            array = array.transpose(1, 2, 0)
        if array.shape[2] == 1:
            array = array[..., 0]
    return array
