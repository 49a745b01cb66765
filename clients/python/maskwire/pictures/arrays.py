"""Arrays to files, without loss."""

import io
import zlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskwire.pictures.errors import PictureError, words
from maskwire.pictures.tiff_tags import Tag, write
from maskwire.suggest import no_such

Channels = Literal["rgb", "bgr"]
"""Order of an array's colours; transparency comes last in either."""

_SHAPES = "give HxW, HxWx1 (grey), HxWx2 (grey, alpha), HxWx3 (RGB) or HxWx4 (RGBA)"
_FORMS = {"u": 1, "i": 2, "f": 3}
_DEFLATE = 8


def is_array(image: object) -> bool:
    """Whether it is an array or a tensor: of NumPy, torch, or anything that NumPy can read."""
    return isinstance(image, np.ndarray) or hasattr(image, "__array__") or _is_tensor(image)


def check_channels(channels: str) -> None:
    """Refuses what is no `Channels`.

    Raises:
        PictureError: BAD_CHANNELS.
    """
    if channels not in get_args(Channels):
        raise PictureError("BAD_CHANNELS", no_such("order of channels", channels, get_args(Channels)))


def from_array(image: Any, channels: Channels = "rgb") -> bytes:
    """A file that holds an array's samples: PNG for 8 bits, TIFF for deeper ones.

    Args:
        image: HxW, HxWx1, HxWx2, HxWx3 or HxWx4 of any real type; or channels first where that cannot be mistaken. A
            torch tensor of three axes has its channels first, unless only the last axis can be channels.
        channels: Order of the colours.

    Raises:
        PictureError: BAD_IMAGE: it has another shape or type, no pixels, or could be read in two ways.
    """
    check_channels(channels)
    tensor = _is_tensor(image)
    samples = _last(_of_tensor(image) if tensor else _of_array(image), tensor)
    if channels == "bgr" and samples.ndim == 3 and samples.shape[2] >= 3:
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    return as_png(samples) if samples.dtype == np.uint8 else as_tiff(samples)


def as_png(samples: NDArray[np.uint8]) -> bytes:
    """A PNG of 8-bit samples: HxW, or HxWxC with up to 4 channels."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(samples)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def as_tiff(samples: NDArray[Any]) -> bytes:
    """A TIFF of samples of any type that TIFF has: HxW, or HxWxC with up to 4 channels; channels 2 and 4 are alpha."""
    height, width, count = samples.shape if samples.ndim == 3 else (*samples.shape, 1)
    stored = np.ascontiguousarray(samples).astype(samples.dtype.newbyteorder("<"), copy=False)
    body = zlib.compress(stored.data, 1)
    several: dict[Tag, int | Sequence[int]] = {}
    if count in (2, 4):
        several[Tag.EXTRA_SAMPLES] = 2
    return write(
        bytes(8) + body,
        {
            Tag.WIDTH: width,
            Tag.HEIGHT: height,
            Tag.BITS: [8 * samples.dtype.itemsize] * count,
            Tag.COMPRESSION: _DEFLATE,
            Tag.PHOTOMETRIC: 1 if count < 3 else 2,
            Tag.STRIP_OFFSETS: 8,
            Tag.SAMPLES: count,
            Tag.ROWS_PER_STRIP: height,
            Tag.STRIP_SIZES: len(body),
            Tag.SAMPLE_FORMAT: [_FORMS[samples.dtype.kind]] * count,
            **several,
        },
    )


def _is_tensor(image: object) -> bool:
    """Whether it is a torch tensor; torch need not be installed."""
    return any(kind.__module__.split(".")[0] == "torch" for kind in type(image).__mro__)


def _of_tensor(image: Any) -> NDArray[Any]:
    tensor = image.detach().cpu()
    try:
        return _of_array(tensor.numpy())
    except TypeError:  # bfloat16, which NumPy does not have
        return _of_array(tensor.float().numpy())


def _of_array(image: Any) -> NDArray[Any]:
    """An array of a type that PNG or TIFF has."""
    try:
        array = np.asarray(image)
    except Exception as error:  # whatever the object's own __array__ raises
        raise PictureError("BAD_IMAGE", f"the array cannot be read: {words(error)}") from error
    dtype = array.dtype.newbyteorder("=")
    if dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if dtype.kind not in _FORMS:
        raise PictureError("BAD_IMAGE", f"an array of {array.dtype}; give integers, floating point or bool")
    if dtype.kind == "f":
        dtype = np.dtype(np.float32 if dtype.itemsize < 4 else np.float64 if dtype.itemsize > 8 else dtype)
    elif dtype.itemsize == 8 and array.size:
        narrow = np.dtype(f"{dtype.kind}4")
        limits = np.iinfo(narrow)
        fits = limits.min <= int(array.min()) and int(array.max()) <= limits.max
        dtype = narrow if fits else np.dtype(np.float64)
    return array.astype(dtype, copy=False)


def _last(array: NDArray[Any], tensor: bool) -> NDArray[Any]:
    """The array with its channels last, or without any."""
    if array.ndim not in (2, 3):
        hint = "; take one image of the batch" if array.ndim == 4 else ""
        raise PictureError("BAD_IMAGE", f"an array of shape {array.shape}{hint}; {_SHAPES}")
    if array.size == 0:
        raise PictureError("BAD_IMAGE", f"an array of shape {array.shape} has no pixels")
    if array.ndim == 3:
        first, last = array.shape[0] in (1, 2, 3, 4), array.shape[2] in (1, 2, 3, 4)
        if not first and not last:
            raise PictureError("BAD_IMAGE", f"an array of shape {array.shape} has no axis of channels; {_SHAPES}")
        if tensor and first and last:
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
