"""Shows where the time of a click goes: prints the traces of a cold and a warm click as trees.

    python -m bench.traces

Starts a store, an encoder with the demo model, a decoder and a gateway, which send their spans to this process.
"""

import io
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence

import maskwire
from opentelemetry import trace
from opentelemetry.propagate import inject
from PIL import Image

from testing.paths import ROOT
from testing.trace_collector import Collector, Span
from testing.traced_application import click_twice, start_tracing

PHOTO = ROOT / "clients/web/maskwire_web/sample.jpg"


def printed(root: Span) -> str:
    """Returns a trace as lines with start and length in milliseconds, name and service of each span."""
    lines = [
        f"{span.start_ms - root.start_ms:9.1f} {span.took_ms:9.1f}  {'  ' * depth}{span.name}  ({span.service})"
        for depth, span in root.walk()
    ]
    return "\n".join([" start ms   took ms", *lines])


def through_gateway(tracer: trace.Tracer, gateway: str, image_id: str) -> None:
    """Clicks over HTTP."""
    with tracer.start_as_current_span("click by HTTP"):
        headers = {"content-type": "application/json"}
        inject(headers)
        body = json.dumps({"prompts": [{"points": [{"x_px": 100, "y_px": 100}]}]}).encode()
        request = urllib.request.Request(f"{gateway}/v1/images/{image_id}/segment", body, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()


def main(options: Sequence[str]) -> None:
    collector = Collector()
    tracer = start_tracing(collector.address)
    command = [sys.executable, "-m", "maskwire.cli", "up", "--json", "--encoder-port", "0", "--decoder-port", "0"]
    process = subprocess.Popen(
        [*command, "--gateway-port", "0", *options],
        stdout=subprocess.PIPE,
        env={**os.environ, "MASKWIRE_TRACE_TO": collector.address},
    )
    try:
        assert process.stdout is not None
        up = json.loads(process.stdout.readline())
        with maskwire.Client(up["encoder"], up["decoder"]) as client:  # so that the traces show no first-time costs
            client.embed(_other(), image_id="other")
            client.segment("other", points=[(10, 10)])
        click_twice(tracer, up["encoder"], up["decoder"], PHOTO)
        through_gateway(tracer, up["gateway"].rstrip("/"), "other")
    finally:
        process.terminate()
        process.wait(60)
    for root in collector.trees():
        if root.service == "application":
            print(printed(root), end="\n\n")
    collector.close()


def _other() -> bytes:
    """Returns the photograph rotated by 180 degrees, as a JPEG file."""
    file = io.BytesIO()
    with Image.open(PHOTO) as image:
        image.rotate(180).save(file, "JPEG")
    return file.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])
