"""Training scenes: pictures composed on the fly, and photographs with their masks."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from training.demo.pack import Pack
from training.demo.shapes import Image, outline, patchwork, plain, texture

WEIGHTS = {"coco": 0.4, "people": 0.2, "regions": 0.22, "food": 0.1, "facade": 0.06, "nuclei": 0.02}
"""How often photographs of each source are drawn; sources that are not named here count as the rarest."""

WITHOUT_PROMINENT = ("facade", "nuclei", "regions")
"""Sources of many alike objects, of which none is the most prominent."""

PARTS = ("regions",)
"""Sources of masks that are mostly parts of things."""

PATCHWORK, FAINT = 0.5, 0.15
"""Shares of textured shapes made of several surfaces, and of objects that are hardly seen before what is behind them:
what a box says is learned from them, since little else tells where they end.
"""

TURNED, RECOLOURED = 0.4, 0.4
"""Shares of photographs that are turned, and of scenes in other colours: a few hundred photographs are seen hundreds of
times each, and would be learned by heart.
"""

_LEAST, _MOST = 0.0015, 0.92  # share of the picture that an object may take


@dataclass
class Scene:
    """A picture (SxSx3, uint8, RGB), its objects' masks (SxS), the index of the most prominent, if there is one, and
    whether the masks are mostly parts of things.
    """

    image: NDArray[np.uint8]
    masks: list[NDArray[np.bool_]]
    prominent: int | None
    parts: bool


class Scenes:
    """Draws scenes of one size from a pack."""

    def __init__(self, pack: Pack, size: int) -> None:
        self.pack, self.size = pack, size
        self._sources = [source for source, photos in pack.photos.items() if photos]
        weights = np.array([WEIGHTS.get(source, min(WEIGHTS.values())) for source in self._sources])
        self._weights = weights / weights.sum()

    def draw(self, random: np.random.Generator, easy: float, real: float) -> Scene:
        """A scene: `easy` is the share of simple compositions, `real` that of photographs among the rest."""
        while True:
            source = ""
            if random.random() < easy:
                image, masks, prominent = *self.compose(random, easy=True), True
            elif random.random() < real and self._sources:
                source, image, masks, prominent = self._photograph(random)
            else:
                image, masks, prominent = *self.compose(random, easy=False), True
            area = self.size**2
            masks = [mask for mask in masks if _LEAST * area < np.count_nonzero(mask) < _MOST * area]
            if masks:
                largest = int(np.argmax([np.count_nonzero(mask) for mask in masks]))
                return Scene(_disturb(image, random), masks, largest if prominent else None, source in PARTS)

    def compose(self, random: np.random.Generator, easy: bool) -> tuple[Image, list[NDArray[np.bool_]]]:
        """Objects over one another on a background, and what is visible of each.

        Some objects are put onto another as its parts, such as a wheel on a car: then the larger one's mask keeps them.
        """
        size = self.size
        kind = random.random()
        if kind < (0.3 if easy else 0.1):
            image = plain(size, random)
        else:
            image = self._background(size, random) if kind < (0.6 if easy else 0.85) else texture(size, random)
        masks: list[NDArray[np.bool_]] = []
        for _ in range(int(random.integers(1, 5) if easy else random.integers(1, 8))):
            whole = masks[-1] if masks and not easy and random.random() < 0.3 else None
            patch = self._object(random)
            if whole is None:
                low, high = (0.25, 0.8) if easy else (0.07, 0.9)
                centre = random.uniform(0.05, 0.95, 2) * size
            else:
                inside = np.argwhere(whole)
                if len(inside) < 0.01 * size**2:
                    continue
                centre = inside[random.integers(len(inside)), ::-1].astype(np.float64)
                low, high = np.array([0.2, 0.6]) * np.sqrt(len(inside)) / size
            placed = _place(*patch, size, centre, np.exp(random.uniform(np.log(low), np.log(high))) * size, random)
            if placed is None:
                continue
            rgb, alpha, at = placed
            under = image[at]
            if not easy and random.random() < 0.4:
                shift = tuple(random.integers(-8, 12, 2) * size // 400)
                shadow = cv2.GaussianBlur(np.roll(alpha, shift, (0, 1)), (0, 0), random.uniform(2, 8) * size / 400)
                under = under * (1 - 0.5 * shadow[..., None])
            mask = np.zeros((size, size), bool)
            mask[at] = alpha > 0.5
            if not easy and random.random() < FAINT:
                alpha = alpha * np.float32(random.uniform(0.3, 0.8))
            image[at] = under + (rgb - under) * alpha[..., None]
            for other in masks:
                if other is not whole:
                    other &= ~mask
            masks.insert(0 if whole is not None else len(masks), mask)
        return image, masks

    def _photograph(self, random: np.random.Generator) -> tuple[str, Image, list[NDArray[np.bool_]], bool]:
        """A source, a random part of a photograph of it, at most twelve of its masks, and whether one of them may be
        the most prominent.
        """
        source = self._sources[random.choice(len(self._sources), p=self._weights)]
        photos = self.pack.photos[source]
        photo = photos[random.integers(len(photos))]
        height, width = photo.pixels.shape[:2]
        share = random.uniform(0.4, 1) if random.random() < 0.6 else 1.0
        rows = int(height * share)
        columns = int(np.clip(width * share * random.uniform(0.8, 1.25), 16, width))
        y, x = random.integers(height - rows + 1), random.integers(width - columns + 1)
        part = np.s_[y : y + rows, x : x + columns]
        chosen = random.permutation(len(photo.masks))[:12]
        masks = [_scale(photo.mask(index)[part].view(np.uint8), self.size) for index in chosen]
        image = _shrink(photo.pixels[part], self.size).astype(np.float32)
        if random.random() < TURNED:
            image, masks = turn(image, masks, random.uniform(-25, 25))
        return source, image, masks, len(photo.masks) <= 12 and share == 1 and source not in WITHOUT_PROMINENT

    def _background(self, size: int, random: np.random.Generator) -> Image:
        if not self.pack.backgrounds:
            return texture(size, random)
        photo = self.pack.backgrounds[random.integers(len(self.pack.backgrounds))]
        side = int(random.uniform(0.4, 1) * min(photo.shape[:2]))
        y, x = (random.integers(length - side + 1) for length in photo.shape[:2])
        return _shrink(photo[y : y + side, x : x + side], size).astype(np.float32)

    def _object(self, random: np.random.Generator) -> tuple[Image, Image]:
        """RGB and alpha (0 to 1) of a cut-out, an object cut from a photograph, or a textured shape."""
        kind = random.random()
        patch: tuple[Image, Image] | None = None
        if kind < 0.4 and self.pack.cutouts:
            cutout = self.pack.cutouts[random.integers(len(self.pack.cutouts))]
            patch = cutout[..., :3].astype(np.float32), _share(cutout[..., 3])
        elif kind < 0.75:
            patch = self._from_photograph(random)
        if patch is None:
            side = 96 if self.size < 200 else 160
            count = int(random.integers(2, 5)) if random.random() < PATCHWORK else 1
            rgb = patchwork([self._surface(side, random) for _ in range(count)], random)
            if random.random() < 0.5:
                slope = np.linspace(random.uniform(0.6, 1), random.uniform(0.8, 1.3), side, dtype=np.float32)
                rgb = rgb * slope[:, None, None]
            patch = rgb, _share(outline(side, random))
        rgb, alpha = patch
        if random.random() < 0.5:
            rgb = rgb * random.uniform(0.6, 1.3, (1, 1, 3)).astype(np.float32) + np.float32(random.uniform(-25, 25))
        return np.clip(rgb, 0, 255), alpha

    def _surface(self, side: int, random: np.random.Generator) -> Image:
        return self._background(side, random) if random.random() < 0.5 else texture(side, random)

    def _from_photograph(self, random: np.random.Generator) -> tuple[Image, Image] | None:
        sources = [source for source in self._sources if source not in WITHOUT_PROMINENT]
        if not sources:
            return None
        weights = np.array([WEIGHTS.get(source, min(WEIGHTS.values())) for source in sources])
        photos = self.pack.photos[sources[random.choice(len(sources), p=weights / weights.sum())]]
        photo = photos[random.integers(len(photos))]
        mask = photo.mask(int(random.integers(len(photo.masks))))
        if np.count_nonzero(mask) < 900:
            return None
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        alpha = cv2.GaussianBlur(mask[part].astype(np.float32), (0, 0), 0.7)
        return photo.pixels[part].astype(np.float32), np.asarray(alpha, np.float32)


def _place(
    rgb: Image, alpha: Image, size: int, centre: NDArray[np.float64], longest: float, random: np.random.Generator
) -> tuple[Image, Image, tuple[slice, slice]] | None:
    """Turns and scales a patch; what lands on the picture, and where. None: nothing does."""
    scale = longest / max(alpha.shape)
    if scale < 0.5:
        width, height = (max(1, int(side * scale * 1.5)) for side in alpha.shape[::-1])
        small = (cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in (rgb, alpha))
        rgb, alpha = (np.asarray(part, np.float32) for part in small)
        scale = longest / max(alpha.shape)
    height, width = alpha.shape
    turn = random.uniform(-180, 180) if random.random() < 0.5 else random.uniform(-20, 20)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), turn, scale)
    if random.random() < 0.5:
        matrix[0, :2] = matrix[0, :2] * random.uniform(0.6, 1.4)
    matrix[:, 2] += centre - (matrix[:, :2] @ [width / 2, height / 2] + matrix[:, 2])
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    left, top = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, size)
    right, bottom = np.clip(np.ceil(corners.max(0)).astype(int) + 1, 0, size)
    if right <= left or bottom <= top:
        return None
    matrix[:, 2] -= (left, top)
    box = (int(right - left), int(bottom - top))
    warped = (cv2.warpAffine(part, matrix, box, flags=cv2.INTER_LINEAR) for part in (rgb, alpha))
    rgb, alpha = (np.asarray(part, np.float32) for part in warped)
    return rgb, alpha, np.s_[top:bottom, left:right]


def _share(values: NDArray[np.uint8]) -> Image:
    """0 to 255 as 0 to 1."""
    return np.divide(values, 255, dtype=np.float32)


def _scale(mask: NDArray[np.uint8], size: int) -> NDArray[np.bool_]:
    """0 and 1 to false and true. Linear: ten times as fast as by area, and good enough for borders."""
    return np.asarray(cv2.resize(mask * np.uint8(254), (size, size)) > 127, np.bool_)


def _shrink(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def turn(image: Image, masks: list[NDArray[np.bool_]], degrees: float) -> tuple[Image, list[NDArray[np.bool_]]]:
    """A picture and its masks turned about the middle; in the corners is the picture's mean colour."""
    size = len(image)
    matrix = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), degrees, 1)
    colour = image.mean((0, 1)).tolist()
    turned = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=colour)
    parts = [cv2.warpAffine(mask * np.uint8(254), matrix, (size, size)) > 127 for mask in masks]
    return np.asarray(turned, np.float32), [np.asarray(part, np.bool_) for part in parts]


def recolour(image: Image, random: np.random.Generator) -> Image:
    """Other hues, another saturation, and another contrast between dark and bright."""
    hsv = cv2.cvtColor(np.clip(image, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + random.uniform(-40, 40)) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * random.uniform(0.4, 1.5), 0, 1)
    hsv[..., 2] = np.clip(hsv[..., 2], 0, 1) ** random.uniform(0.7, 1.3)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255, np.float32)


def _disturb(image: Image, random: np.random.Generator) -> NDArray[np.uint8]:
    """Blur, noise, and other brightness and colours, each on some pictures."""
    if random.random() < RECOLOURED:
        image = recolour(image, random)
    if random.random() < 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 1.2)), np.float32)
    if random.random() < 0.25:
        image = image + random.uniform(1, 10) * random.standard_normal(image.shape, np.float32)
    if random.random() < 0.5:
        gain = random.uniform(0.75, 1.25) * random.uniform(0.92, 1.08, 3)
        image = image * gain.astype(np.float32) + np.float32(random.uniform(-20, 20))
    if random.random() < 0.08:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2)
    return np.clip(image, 0, 255).astype(np.uint8)
