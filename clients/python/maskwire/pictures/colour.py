"""Converts pictures to sRGB by their colour profiles."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

MAX_PROFILE_BYTES = 4 << 20
"""Larger ICC profiles are ignored."""

_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # mode of the pictures in each colour space of a profile
_SRGB_TOLERANCE = 2  # a profile that changes no colour of a chart by more levels than this counts as sRGB


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts an 8-bit picture to sRGB.

    Args:
        image: Picture of mode L, RGB, CMYK or LAB; Pillow converts other modes to RGB first.
        profile: Its ICC profile. A damaged one, one for another colour space, and one that is nearly sRGB are ignored.

    Returns:
        The picture, of mode RGB.
    """
    if image.mode == "LAB":
        return _apply(image, _lab_to_srgb())
    if image.mode not in _MODES.values():
        image = image.convert("RGB")
    transform = transform_of(profile, image.mode)
    return image.convert("RGB") if transform is None else _apply(image, transform)


def transform_of(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Returns the transform to sRGB for pictures of a mode with an ICC profile; None if none is needed."""
    return _transform(profile, mode) if profile and len(profile) <= MAX_PROFILE_BYTES else None


@functools.lru_cache(maxsize=16)  # a camera or program writes the same profile into every file
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if _MODES.get(space) != mode:  # also grey pictures with an RGB profile, which some programs write
            return None
        transform = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.PERCEPTUAL
        )
        return None if mode != "CMYK" and _is_srgb(transform, mode) else transform
    except Exception:  # lcms2 and Pillow raise all kinds of exceptions for damaged profiles
        return None


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        chart = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        chart = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(9, 81, 3))
    changes = np.asarray(_apply(chart, transform)).astype(int) - np.asarray(chart.convert("RGB"))
    return int(np.abs(changes).max()) <= _SRGB_TOLERANCE


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted: Image.Image | None = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only in-place transforms return None
    return converted


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
