"""The operators of torchvision's compiled part, without which it cannot be imported beside a CPU-only torch."""

import torch

_library = torch.library.Library("torchvision", "DEF")


def declare() -> None:
    """Declares the operators, and implements the one that sam2 calls."""
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.impl("nms", nms, "CPU")
    import torchvision.ops.boxes

    torchvision.ops.boxes._assert_has_ops = lambda: None


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Non-maximum suppression that gives what torchvision's CPU kernel gives.

    Args:
        boxes: Nx4: x0, y0, x1, y1.
        scores: N.
        iou_threshold: A box is dropped if its intersection over union with a better one is larger than this.

    Returns:
        Indices of the boxes that are kept, int64, the best first.
    """
    order = scores.sort(stable=True, descending=True).indices.tolist()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for index in order:
        for better in kept:
            sides = torch.minimum(boxes[index, 2:], boxes[better, 2:]) - torch.maximum(
                boxes[index, :2], boxes[better, :2]
            )
            inner = sides.clamp(min=0).prod()
            if (inner / (areas[better] + areas[index] - inner)).item() > iou_threshold:
                break
        else:
            kept.append(index)
    return torch.tensor(kept, dtype=torch.int64)
