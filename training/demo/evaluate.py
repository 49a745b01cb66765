"""Evaluates the demo model on held-out photographs and scenes, by sam2's own forward pass.

    python -m training.demo.evaluate --data demo-data.zip
    python -m training.demo.evaluate --data demo-data.zip --weights runs/demo/demo.safetensors

Without --data it takes the small sample that is in the repository. Mean IoU over objects (the largest of each picture):
a click on the centre (the candidate that the model thinks best; the best of three), a box, and after 3 and 5
corrective clicks, each on the centre of what is most wrong; no prompt counts on pictures with a prominent object. Then
how far the predicted IoU can be trusted.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from training.demo.asker import Answer, Asker, bounds, iou
from training.demo.heldout import Case, cases
from training.demo.pack import Pack

SAMPLE = Path(__file__).parent / "sample.zip"
COLUMNS = ("click", "best of 3", "box", "+3 clicks", "+5 clicks", "nothing")
_EDGES = np.linspace(0, 1, 6)


@dataclass
class Scores:
    """IoU by source and column; predicted and reached IoU of every candidate."""

    reached: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    predictions: list[tuple[float, float]] = field(default_factory=list)

    def mean(self, source: str, column: str) -> float:
        return float(np.mean(self.reached[source][column])) if self.reached[source][column] else float("nan")

    def table(self) -> str:
        """Markdown."""
        lines = [f"| held out | objects | {' | '.join(COLUMNS)} |", f"|---|---|{'---|' * len(COLUMNS)}"]
        for source, columns in self.reached.items():
            means = (self.mean(source, column) for column in COLUMNS)
            cells = " | ".join("-" if np.isnan(mean) else f"{mean:.2f}" for mean in means)
            lines.append(f"| {source} | {len(columns['click'])} | {cells} |")
        return "\n".join(lines)

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
        return {source: {column: self.mean(source, column) for column in COLUMNS} for source in self.reached}


def evaluate(asker: Asker, held_out: Iterable[Case]) -> Scores:
    scores = Scores()

    def judge(answer: Answer, target: Any) -> list[float]:
        reached = [iou(mask, target) for mask in answer.masks]
        scores.predictions += zip(map(float, answer.scores), reached, strict=True)
        return reached

    for case in held_out:
        asker.look(case.rgb)
        columns = scores.reached[case.source]
        for target in case.masks:
            answers = asker.corrected(target, clicks=5)
            candidates = judge(answers[0], target)
            columns["click"].append(candidates[answers[0].best])
            columns["best of 3"].append(max(candidates))
            for count in (3, 5):
                columns[f"+{count} clicks"] += judge(answers[count], target)
            columns["box"] += judge(asker.box(bounds(target)), target)
        if case.prominent:
            answer = asker.nothing()
            columns["nothing"].append(judge(answer, case.masks[0])[answer.best])
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SAMPLE, help="file made by training.demo.pack")
    parser.add_argument("--weights", type=Path, help=".safetensors (default: the package's)")
    parser.add_argument("--composed", type=int, default=40, help="composed scenes (default 40)")
    parser.add_argument("--objects", type=int, default=6, help="objects of each picture at most (default 6)")
    parser.add_argument("--json", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    pack = Pack.load(arguments.data, held_out=True)
    scores = evaluate(Asker(arguments.weights), cases(pack, arguments.composed, arguments.objects))
    print(scores.table(), scores.calibration(), sep="\n\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(scores.summary(), indent=2) + "\n")


if __name__ == "__main__":
    main()
