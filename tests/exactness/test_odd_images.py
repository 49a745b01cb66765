"""Pictures of every sort, through running services: the masks are sam2's on the pixels that the stated rule gives."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from maskwire import Client
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from testing.reference.predictor import Reference, build_demo
from testing.servers import EXACT, Stack, server
from testing.small_model import SIZE, options

Pixels = NDArray[np.uint8]


def scene(width: int, height: int, seed: int = 0) -> Pixels:
    """Soft blobs over a gradient: something that has objects."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([x / width * 120 + 40, y / height * 120 + 60, np.full_like(x, 90)], axis=2)
    for _ in range(4):
        cx, cy, r = random.uniform(0, width), random.uniform(0, height), random.uniform(0.1, 0.35) * max(width, height)
        inside = 1 / (1 + np.exp(np.clip((np.hypot(x - cx, y - cy) - r) / 2, -50, 50)))[..., None]
        image = image * (1 - inside) + random.uniform(0, 255, 3) * inside
    return image.astype(np.uint8)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def lossy(form: str, **options: Any) -> Callable[[], tuple[bytes, Pixels]]:
    def make() -> tuple[bytes, Pixels]:
        data = saved(Image.fromarray(scene(320, 240)), form, **options)
        return data, decoded(data)

    return make


def exact(width: int, height: int, form: str = "PNG", **options: Any) -> Callable[[], tuple[bytes, Pixels]]:
    def make() -> tuple[bytes, Pixels]:
        pixels = scene(width, height)
        return saved(Image.fromarray(pixels), form, **options), pixels

    return make


def exif_tag(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def exif(orientation: int) -> Callable[[], tuple[bytes, Pixels]]:
    def make() -> tuple[bytes, Pixels]:
        pixels = scene(200, 120)
        image = Image.fromarray(pixels)
        shown = {
            1: pixels,
            2: pixels[:, ::-1],
            3: pixels[::-1, ::-1],
            4: pixels[::-1],
            5: pixels.transpose(1, 0, 2),
            6: np.rot90(pixels, -1),
            7: np.rot90(pixels, 2).transpose(1, 0, 2),
            8: np.rot90(pixels),
        }[orientation]
        return saved(image, "PNG", exif=exif_tag(orientation)), np.ascontiguousarray(shown)

    return make


def grey() -> tuple[bytes, Pixels]:
    level = scene(200, 150)[..., 0]
    return saved(Image.fromarray(level), "PNG"), np.dstack([level] * 3)


def deep() -> tuple[bytes, Pixels]:
    level = scene(200, 150)[..., 0]
    return saved(Image.fromarray(level.astype(np.uint16) * 256 + 200), "PNG"), np.dstack([level] * 3)


def palette() -> tuple[bytes, Pixels]:
    image = Image.fromarray(scene(200, 150)).quantize(12)
    return saved(image, "PNG"), np.array(image.convert("RGB"))


def alpha() -> tuple[bytes, Pixels]:
    pixels = scene(200, 150)
    mask = np.linspace(0, 255, 200).astype(np.uint8)[None].repeat(150, 0)
    data = saved(Image.fromarray(np.dstack([pixels, mask])), "PNG")
    weight = mask[..., None] / 255
    return data, np.rint(pixels * weight + 255 * (1 - weight)).astype(np.uint8)


def cmyk() -> tuple[bytes, Pixels]:
    data = saved(Image.fromarray(scene(200, 150)).convert("CMYK"), "JPEG")
    return data, decoded(data)


PICTURES: dict[str, Callable[[], tuple[bytes, Pixels]]] = {
    **{f"exif {orientation}": exif(orientation) for orientation in range(1, 9)},
    "grey": grey,
    "16 bit": deep,
    "palette": palette,
    "alpha": alpha,
    "cmyk": cmyk,
    "jpeg": lossy("JPEG", quality=70),
    "jpeg, turned": lossy("JPEG", exif=exif_tag(6)),
    "progressive jpeg": lossy("JPEG", progressive=True),
    "webp": lossy("WEBP"),
    "bmp": exact(200, 150, "BMP"),
    "tiff": exact(200, 150, "TIFF", compression="tiff_lzw"),
    "one pixel": exact(1, 1),
    "one column": exact(1, 300),
    "20:1": exact(1200, 60),
    "1:20": exact(60, 1200),
    "square of the model's size": exact(SIZE, SIZE),
    "5 megapixels": exact(2600, 1970, compress_level=1),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return build_demo(SIZE)


@pytest.fixture(scope="module")
def client(exact: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of an encoder with the demo model at a size at which it is sixteen times as fast."""
    words = [word for name, value in options(tmp_path_factory.mktemp("small")).items() for word in (f"--{name}", value)]
    with (
        server("maskwire_encoder", exact.redis_url, *EXACT[:2], *words) as encoder,
        Client(encoder, exact.decoder, namespace="odd") as connected,
    ):
        yield connected


@pytest.mark.parametrize("name", PICTURES)
def test_masks_equal_sam2(name: str, client: Client, model: Any) -> None:
    data, pixels = PICTURES[name]()
    height, width = pixels.shape[:2]
    embedded = client.embed(data)
    assert (embedded.width, embedded.height) == (width, height)
    reference = Reference(model, pixels)
    # Pillow composes with integers, and large images are resized in 8 bits: some values are a level off.
    rounding = name in ("alpha", "5 megapixels")
    for prompt in (
        {"points": [(width * 0.4, height * 0.6)], "labels": [1]},
        {"box": [0, 0, width * 0.7, height * 0.8]},
    ):
        answer = reference.predict(prompt, multimask=True)
        result = client.segment(
            image_id=embedded.image_id, **prompt, every=True, outputs=("rle", "logits"), logits_dtype="float32"
        )
        ours = np.stack([mask.logits for mask in result.candidates])
        np.testing.assert_allclose(ours, answer.logits, atol=0.3 if rounding else 1e-3, rtol=0)
        for mask, expected, unsure in zip(result.candidates, answer.masks, answer.unsure, strict=True):
            wrong = (mask.array != expected) & ~unsure
            assert wrong.mean() <= (0.01 if rounding else 0)
