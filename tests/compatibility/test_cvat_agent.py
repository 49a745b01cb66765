"""The function for CVAT's AI agents, run by cvat-cli's agent code."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from maskwire import Client

from testing.foreign_programs import installed
from testing.paths import ROOT
from testing.servers import Stack

pytestmark = [pytest.mark.compatibility, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).parent / "cvat_agent_run.py"
CLICK: dict[str, Any] = {"pos_points": [[260, 130]], "neg_points": [], "obj_bbox": []}
BOX: dict[str, Any] = {"pos_points": [], "neg_points": [], "obj_bbox": [[135, 40], [500, 345]]}


@pytest.mark.client(
    "CVAT's AI agent", "`cvat-cli function run-agent`: its agent code, clicks and boxes", package="cvat-cli"
)
def test_an_agents_masks_are_the_clients(stack: Stack, client: Client, photo: Path) -> None:
    requests = [
        CLICK,
        {**CLICK, "neg_points": [[300, 330]]},
        {**BOX, "pos_points": [[260, 130]]},
        {"pos_points": [], "neg_points": [], "obj_bbox": []},
        {**CLICK, "pos_points": [[2600, 130]]},
        {**BOX, "frame": 7, "roi": [100, 20, 520, 360]},
    ]
    expected = [
        client.segment(photo, points=[(260, 130)]),
        client.segment(photo, points=[(260, 130), (300, 330)], labels=[1, 0]),
        client.segment(photo, points=[(260, 130)], box=(135, 40, 500, 345)),
    ]
    sources = [ROOT / "clients/python", ROOT / "services/core", ROOT / "clients/adapters"]
    path = os.pathsep.join(str(one) for one in (*sources, sysconfig.get_path("purelib")))
    done = subprocess.run(
        [installed("cvat-cli==2.80.0") / "python", SCRIPT, photo],
        input=json.dumps([{"task": 1, "frame": 0, **request} for request in requests]),
        env={**os.environ, **stack.environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    spec, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert spec == {"min_pos_points": 0, "min_neg_points": 0, "startswith_box_optional": True}
    for answer, result in zip(answers, expected, strict=False):
        assert answer["type"] == "mask", answer
        np.testing.assert_array_equal(np.array(answer["mask"], bool), result.mask)
        assert float(answer["confidence"]) == pytest.approx(min(result.score, 1), abs=1e-4)
    nothing, outside, in_part = answers[3:]
    assert "click at the object" in nothing["error"]
    assert "the click at (2600, 130) is outside the image, which is 600x400 pixels" in outside["error"]
    assert in_part["type"] == "mask"
