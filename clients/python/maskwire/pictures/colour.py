"""Colour profiles: everything to sRGB."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's colour space, and the mode of pictures in it
_SAME_LEVELS = 2
"""Profiles that change no colour of a chart by more levels than this count as sRGB."""
_MAX_PROFILE_BYTES = 4 << 20


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit picture in sRGB.

    Args:
        image: Of mode L, RGB, CMYK or LAB; other modes are taken as Pillow converts them to RGB.
        profile: Its ICC profile. One that is damaged, of another colour space than the picture, or as good as sRGB is
            ignored.

    Returns:
        The picture, of mode RGB.
    """
    if image.mode == "LAB":
        return _applied(image, _from_lab())
    if image.mode not in _MODES.values():
        image = image.convert("RGB")
    transform = transform_of(profile, image.mode)
    if transform is None:
        return image.convert("RGB")
    return _applied(image, transform)


def transform_of(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns pictures of a mode and a profile into sRGB; None if there is nothing to do."""
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return None
    # A grey picture with a profile for colours, as some programs write it, is grey in those colours.
    return _transform(profile, mode)


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Profiles repeat: those of cameras and programs are the same in every file."""
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if _MODES.get(space) != mode:
            return None
        transform = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        return None if mode != "CMYK" and _is_srgb(transform, mode) else transform
    except Exception:  # lcms2 and Pillow raise whatever a damaged profile makes them stumble over
        return None


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        chart = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        chart = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3))
    changes = np.asarray(_applied(chart, transform)).astype(int) - np.asarray(chart.convert("RGB"))
    return int(np.abs(changes).max()) <= _SAME_LEVELS


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted: Image.Image | None = ImageCms.applyTransform(image, transform)
    assert converted is not None  # it is only where the image itself is changed
    return converted


@functools.cache
def _from_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
