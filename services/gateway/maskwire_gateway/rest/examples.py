"""Requests that work as they stand: the interface's description has them, and /docs sends them."""

from typing import Any

IMAGE_ID = "example"
"""The image that the examples are about; the one for /sam2/embed_image makes it."""

_DISC = (  # a PNG of 64x48 px: a disc with a radius of 14 px around (32, 24)
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwCAIAAAAuKetIAAAAjUlEQVR42u3Y2w2AMAxDUc/EEB2CIRiWiWCCIpFAHr2SB/CR+tFY"
    "49hLRwAAAAAAAACASc6xFQPcjefJC3is/gVDIe0dDYpq72VQYHsXg2Lb2w0Kb280LAxwbG8xAAAAIEf71waeEAAAywL4zCUAlL8H"
    "OlxkHW7iDqtEh12owzLXZBtlXgcAAAAAAD/mAjRtOHCHFfAFAAAAAElFTkSuQmCC"
)
_IMAGE = {"type": "base64", "value": _DISC}
_CLICK = {"points": [{"x": 32, "y": 24, "positive": True}]}

EXAMPLES: dict[tuple[str, str], Any] = {
    ("post", "/v1/images/{image_id}/segment"): {"points": [[32, 24]], "labels": [1], "formats": ["rle", "polygons"]},
    ("post", "/v1/images/{image_id}/masks"): {"points_per_side": 4, "pred_iou_thresh": 0.5},
    ("post", "/sam2/embed_image"): {"image": _IMAGE, "image_id": IMAGE_ID},
    ("post", "/sam2/segment_image"): {"image": _IMAGE, "image_id": IMAGE_ID, "prompts": [_CLICK], "format": "rle"},
}
"""JSON bodies by method and path."""
