"""Names of SAM 2's published models, and what else people call them."""

import re

PUBLISHED_NAMES = frozenset(
    f"{family}_hiera_{size}" for family in ("sam2.1", "sam2") for size in ("tiny", "small", "base_plus", "large")
)
"""The canonical names: those of the checkpoints' files."""


def canonical(name: str) -> str:
    """Returns the canonical name of a published model; other names are returned unchanged.

    hiera_tiny, sam2/hiera_tiny and sam2.1/hiera_tiny stand for the newest version, sam2.1_hiera_tiny;
    facebook/sam2-hiera-tiny and facebook/sam2.1-hiera-tiny for the version that they name. Sizes may be shortened to t,
    s, l, and b, b+ or b_plus.
    """
    plain = name.lower()
    if plain.startswith("facebook/"):
        plain = plain.removeprefix("facebook/").replace("-", "_")
    else:
        size = re.fullmatch(r"(?:sam2(?:\.1)?/)?hiera_(.+)", plain)
        plain = f"sam2.1_hiera_{size[1]}" if size else plain
    plain = re.sub(r"_(b_plus|b\+|b)$", "_base_plus", plain)
    plain = re.sub(r"_(t|s|l)$", lambda short: {"_t": "_tiny", "_s": "_small", "_l": "_large"}[short[0]], plain)
    return plain if plain in PUBLISHED_NAMES else name
