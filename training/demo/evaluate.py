"""Evaluates the demo model on held-out photographs and scenes, by sam2's own forward pass.

    python -m training.demo.evaluate --data demo-data.zip
    python -m training.demo.evaluate --data demo-data.zip --weights OLD.safetensors NEW.safetensors

Without --data it takes the small sample that is in the repository. Mean IoU over objects (the largest of each picture):
a click on the centre (the candidate that the model thinks best; the best of three) and a box, beside what needs no
model: the filled box, and the ellipse that touches its sides. Then, from the click on, one to nine corrective clicks,
each on the centre of what is most wrong. No prompt counts on pictures with a prominent object. Last, how far the
predicted IoU can be trusted.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from training.demo.asker import Answer, Asker, bounds, iou
from training.demo.clicks import Mask
from training.demo.heldout import Case, cases
from training.demo.pack import Pack

SAMPLE = Path(__file__).parent / "sample.zip"
CORRECTIONS = 9
COLUMNS = ("click", "best of 3", "box", "box filled", "ellipse", "nothing")
CURVE = tuple(f"+{count}" for count in range(1, CORRECTIONS + 1))
ALL = "all of these"
_JUDGED = (3, 5)  # corrective clicks whose predicted IoU is compared with what was reached
_EDGES = np.linspace(0, 1, 6)

Reached = Mapping[str, list[float]]
"""IoU of each object, by column."""


@dataclass
class Scores:
    """IoU by source and column; predicted and reached IoU of every candidate."""

    reached: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    predictions: list[tuple[float, float]] = field(default_factory=list)

    def table(self) -> str:
        """Markdown: the first prompt."""
        return self._table(COLUMNS)

    def curve(self) -> str:
        """Markdown: a click, and corrective clicks."""
        return self._table(("click", *CURVE))

    def calibration(self) -> str:
        """Markdown: reached IoU where so much was predicted, and the mean error."""
        predicted, reached = np.array(self.predictions).reshape(-1, 2).T
        lines = ["| predicted IoU | candidates | predicted | reached |", "|---|---|---|---|"]
        for low, high in pairwise(_EDGES):
            inside = (predicted >= low) & ((predicted < high) | (high == 1))
            if inside.any():
                means = f"{predicted[inside].mean():.2f} | {reached[inside].mean():.2f}"
                lines.append(f"| {low:.1f} to {high:.1f} | {np.count_nonzero(inside)} | {means} |")
        return "\n".join([*lines, "", f"Mean absolute error {np.abs(predicted - reached).mean():.2f}."])

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean IoU by source and column, for all sources together, too; NaN where no object counts."""
        return {source: {name: _mean(columns, name) for name in (*COLUMNS, *CURVE)} for source, columns in self._rows()}

    def _table(self, columns: tuple[str, ...]) -> str:
        lines = [f"| held out | objects | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
        for source, reached in self._rows():
            means = (_mean(reached, column) for column in columns)
            cells = " | ".join("-" if np.isnan(mean) else f"{mean:.3f}" for mean in means)
            lines.append(f"| {source} | {len(reached['click'])} | {cells} |")
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, Reached]]:
        """Each source, and all together where there are several."""
        rows: list[tuple[str, Reached]] = list(self.reached.items())
        if len(rows) < 2:
            return rows
        every = self.reached.values()
        return [*rows, (ALL, {name: list(chain(*(columns[name] for columns in every))) for name in (*COLUMNS, *CURVE)})]


def _mean(reached: Reached, column: str) -> float:
    return float(np.mean(reached[column])) if reached[column] else float("nan")


def evaluate(asker: Asker, held_out: Iterable[Case]) -> Scores:
    """Asks for every object of held-out pictures."""
    scores = Scores()

    def judge(answer: Answer, target: Mask) -> list[float]:
        reached = [iou(mask, target) for mask in answer.masks]
        scores.predictions += zip(map(float, answer.scores), reached, strict=True)
        return reached

    for case in held_out:
        asker.look(case.rgb)
        columns = scores.reached[case.source]
        for target in case.masks:
            first, *corrected = asker.corrected(target, CORRECTIONS)
            candidates = judge(first, target)
            columns["click"].append(candidates[first.best])
            columns["best of 3"].append(max(candidates))
            for count, answer in enumerate(corrected, 1):
                if count in _JUDGED:
                    judge(answer, target)
                columns[f"+{count}"].append(iou(answer.masks[answer.best], target))
            box = bounds(target)
            columns["box"] += judge(asker.box(box), target)
            columns["box filled"].append(iou(filled(box, target.shape), target))
            columns["ellipse"].append(iou(ellipse(box, target.shape), target))
        if case.prominent:
            answer = asker.nothing()
            columns["nothing"].append(judge(answer, case.masks[0])[answer.best])
    return scores


def filled(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> Mask:
    """The mask of a box (x1, y1, x2, y2, the far sides exclusive) on a picture of a shape (H, W)."""
    x1, y1, x2, y2 = box
    mask = np.zeros(shape, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def ellipse(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> Mask:
    """The mask of the ellipse that touches the sides of a box, as `filled` takes it."""
    x1, y1, x2, y2 = box
    y, x = np.ogrid[: shape[0], : shape[1]]
    across, down = (2 * x + 1 - x1 - x2) / (x2 - x1), (2 * y + 1 - y1 - y2) / (y2 - y1)
    return np.asarray(across**2 + down**2 <= 1, np.bool_)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="file made by training.demo.pack")
    parser.add_argument(
        "--weights", type=Path, nargs="+", default=[None], help="one or more .safetensors (default: the package's)"
    )
    parser.add_argument("--sources", nargs="+", metavar="NAME", help="photographs of these folders only")
    parser.add_argument("--composed", type=int, default=40, help="composed scenes (default 40)")
    parser.add_argument("--objects", type=int, default=6, help="objects of each picture at most (default 6)")
    parser.add_argument("--json", type=Path, help="also write the tables here, by weights")
    arguments = parser.parse_args()
    held_out = list(
        cases(Pack.load(arguments.data, held_out=True), arguments.composed, arguments.objects, arguments.sources)
    )
    summaries = {}
    for weights in arguments.weights:
        name = "the package's weights" if weights is None else str(weights)
        scores = evaluate(Asker(weights), held_out)
        print(f"# {name}", scores.table(), scores.curve(), scores.calibration(), sep="\n\n", end="\n\n", flush=True)
        summaries[name] = scores.summary()
    if arguments.json:
        arguments.json.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
