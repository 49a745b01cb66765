"""Sends damaged requests to the adapters for labelling tools."""

import base64
import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from testing.adapters import running_adapter
from testing.wire import picture

from .fuzz_http import Request, Told, send_requests

_CONFIG = """<View><Image name="img" value="$picture"/>
<BrushLabels name="tag" toName="img"><Label value="cup"/></BrushLabels>
<KeyPointLabels name="point" toName="img" smart="true"><Label value="cup"/></KeyPointLabels></View>"""


@contextlib.contextmanager
def running_adapters(servers: SimpleNamespace) -> Iterator[dict[str, tuple[str, int]]]:
    """Runs all adapters. Yields the address and the process of each."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(running_adapter(servers, name))
            for name in ("label-studio", "cvat", "anylabeling")
        }


async def send(addresses: Mapping[str, str], model: str, pick: random.Random, count: int) -> Told:
    """Sends damaged requests to each adapter in turn.

    Args:
        addresses: Of the adapters, by name.
        model: The name of the model that is served.
        pick: Source of random choices.
        count: Number of requests to all.
    """
    outcomes, wrong, left = Counter[str](), list[str](), count
    for index, (name, real) in enumerate(_requests(model).items()):
        share = left // (len(addresses) - index)
        left -= share
        told, more = await send_requests(addresses[name], pick, share, real)
        outcomes += told
        wrong += more
    return outcomes, wrong


def _requests(model: str) -> dict[str, list[Request]]:
    """Returns requests that each adapter answers."""
    image = base64.b64encode(picture(400)).decode()
    value: dict[str, Any] = {"x": 43, "y": 32.5, "width": 0.3, "keypointlabels": ["cup"]}
    box = {"x": 20, "y": 10, "width": 60, "height": 75, "rotation": 0, "rectanglelabels": ["cup"]}
    marked = [
        {"type": "keypointlabels", "value": value, "is_positive": True, "image_rotation": 0},
        {"type": "rectanglelabels", "value": box, "original_width": 60, "original_height": 40},
    ]
    task = {
        "tasks": [{"id": 7, "data": {"picture": f"data:image/png;base64,{image}"}}],
        "project": "1.2",
        "label_config": _CONFIG,
        "params": {"login": None, "context": {"result": marked}},
    }
    clicks = {"image": image, "pos_points": [[26, 13]], "neg_points": [[50, 3]], "obj_bbox": [[50, 35], [13, 4]]}
    marks = [
        {"type": "point", "data": [26, 13], "label": 1},
        {"type": "rectangle", "data": [50, 35, 13, 4], "label": 1},
    ]
    return {
        "label-studio": [
            ("POST", "/predict", task),
            ("POST", "/predict", task),
            ("POST", "/setup", {"project": "1.2", "schema": _CONFIG, "hostname": "http://x", "access_token": "y"}),
            ("POST", "/webhook", {"action": "START_TRAINING", "project": {"id": 1}}),
            ("GET", "/versions", None),
        ],
        "cvat": [
            ("POST", "/api/function_invocations", clicks),
            ("POST", "/", clicks),
            ("GET", "/api/functions/maskwire", None),
        ],
        "anylabeling": [
            (
                "POST",
                "/v1/predict",
                {"model": model, "image": image, "params": {"marks": marks, "epsilon_factor": 0.01}},
            ),
            ("GET", f"/v1/models/{model}/info", None),
        ],
    }
