"""Counts the masks that the filters of automatic masks removed, and explains them in words."""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
from maskwire.v1 import decoder_pb2 as pb
from maskwire_core.models.decoder_bundle import MaskDefaults

Filter = Literal["low_predicted_iou", "low_stability", "at_crop_edge"]

_FEW = 5  # with fewer masks than this, the summary says what would keep more
_SUGGESTED_PERCENTILE = 90
_WORDS = {
    "low_predicted_iou": "had a predicted IoU not above {thresholds.pred_iou_thresh:g} (pred_iou_thresh; highest "
    "{highest:.2f})",
    "low_stability": "had a stability score below {thresholds.stability_score_thresh:g} (stability_score_thresh; "
    "highest {highest:.2f})",
    "at_crop_edge": "ended at the edge of a crop",
}


@dataclass(frozen=True)
class Removed:
    """A mask that a filter removed; with its score, where the filter is a threshold on one."""

    by: Filter
    score: float = 0


@dataclass
class Tally:
    """Counts masks that were removed one by one, before duplicates were looked for."""

    candidates: int = 0  # masks that the model gave
    removed: dict[Filter, list[float]] = field(  # scores of the removed masks, by filter
        default_factory=lambda: {"low_predicted_iou": [], "low_stability": [], "at_crop_edge": []}
    )

    def add(self, candidates: int, removed: list[Removed]) -> None:
        """Counts the masks of a click, and those of them that were removed."""
        self.candidates += candidates
        for each in removed:
            self.removed[each.by].append(each.score)

    def summary(self, thresholds: MaskDefaults, clicks: int, kept: int) -> pb.GenerationSummary:
        """Returns counts, the thresholds by which masks were removed, and an explanation for people.

        Args:
            thresholds: By which masks were removed.
            clicks: Number of clicks that were made.
            kept: Number of masks that stay.
        """
        counts = {name: len(scores) for name, scores in self.removed.items()}
        duplicates = self.candidates - sum(counts.values()) - kept
        return pb.GenerationSummary(
            candidates=self.candidates,
            **counts,
            duplicates=duplicates,
            kept=kept,
            **asdict(thresholds),
            explanation=self._explanation(thresholds, clicks, kept, duplicates),
        )

    def _explanation(self, thresholds: MaskDefaults, clicks: int, kept: int, duplicates: int) -> str:
        reasons = [
            f"{len(scores)} {_WORDS[name].format(thresholds=thresholds, highest=max(scores))}"
            for name, scores in self.removed.items()
            if scores
        ]
        if duplicates:
            reasons.append(f"{duplicates} covered the same place as a better one (box_nms_thresh)")
        text = f"{_count(clicks, 'click')} gave {_count(self.candidates, 'mask')}, of which {kept} stay"
        text += f": {', '.join(reasons)}." if reasons else "."
        if kept >= _FEW:
            return text
        lower = [
            f"{name} to {_lower(scores):g}"
            for name, scores in (
                ("pred_iou_thresh", self.removed["low_predicted_iou"]),
                ("stability_score_thresh", self.removed["low_stability"]),
            )
            if scores
        ]
        if lower:
            return f"{text} To keep more, lower {' and '.join(lower)}, or click more densely (points_per_side)."
        return f"{text} To find more, click more densely (points_per_side)."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _lower(scores: list[float]) -> float:
    """Returns a threshold that a tenth of the removed masks would have passed."""
    return max(0.0, math.floor(float(np.percentile(scores, _SUGGESTED_PERCENTILE)) * 100) / 100)
