"""Starts Maskwire, segments a photograph in several ways, and writes overlay pictures and timings to out/.

scripts/demo                        the sample photograph
scripts/demo photo.jpg --point 500,375
scripts/demo --model sam2.1_hiera_tiny      with SAM 2.1's own weights, which are downloaded once (156 MB)
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from maskwire import Client

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "coffee.jpg"
SAMPLE_PROMPTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "click": {"points": [(260, 130)]},
    "clicks": {"points": [(260, 130), (300, 330)], "labels": [1, 0]},
    "box": {"box": (135, 40, 500, 345)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path, default=SAMPLE, help="photograph to segment")
    parser.add_argument("--point", metavar="X,Y", help="where to click it")
    parser.add_argument("--model", default="demo", help="model that makes the masks, as of 'maskwire up'")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder for the pictures")
    arguments = parser.parse_args()
    if not arguments.image.is_file():
        sys.exit(f"error: no such file: {arguments.image}")
    prompts = SAMPLE_PROMPTS
    if arguments.point or arguments.image != SAMPLE:
        point = _point(arguments.point) if arguments.point else None
        prompts = {"nothing": {}, **({"click": {"points": [point]}} if point else {})}
    arguments.out.mkdir(parents=True, exist_ok=True)

    print(f"== starting a store, an encoder with the model {arguments.model} and a decoder", flush=True)
    command = [sys.executable, "-m", "maskwire.cli", "up", "--json", "--encoder-port", "0", "--decoder-port", "0"]
    command += ["--model", arguments.model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as servers:
        try:
            assert servers.stdout is not None
            ready = servers.stdout.readline()
            if not ready:
                sys.exit("error: the servers did not start; their messages are above")
            addresses = json.loads(ready)
            with Client(addresses["encoder"], addresses["decoder"]) as client:
                segment(client, arguments.image, prompts, arguments.out)
        finally:
            print("== stopping", flush=True)
            servers.terminate()
    print(f"done: look at the pictures in {arguments.out}")
    if arguments.model == "demo":
        print("The demo model is small and rough. For SAM 2.1's own masks: scripts/demo --model sam2.1_hiera_tiny")


def _point(text: str) -> tuple[float, ...]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        sys.exit(f"error: --point {text!r} is not X,Y in pixels, such as 500,375")
    return x, y


def segment(client: Client, image: Path, prompts: dict[str, dict[str, Any]], out: Path) -> None:
    print(f"== embedding {image.name}", flush=True)
    embedded = client.embed(image)
    print(f"   {embedded.width}x{embedded.height} px, encoded in {embedded.timings['encode_ms']:.0f} ms", flush=True)
    report: dict[str, Any] = {"image": image.name, "model": embedded.model, "embed": embedded.timings, "prompts": {}}
    client.segment(embedded.image_id)  # the first click fetches embedding and decoder; what follows is warm
    for name, prompt in prompts.items():
        started = time.perf_counter()
        result = client.segment(embedded.image_id, **prompt)
        total_ms = (time.perf_counter() - started) * 1e3
        picture = out / f"{image.stem}-{name}.png"
        result.save_overlay(picture, image)
        described = (
            ", ".join(f"{kind} {value}" for kind, value in prompt.items()) or "no prompt: the most prominent object"
        )
        print(f"   {described}: score {result.score:.2f}, {total_ms:.0f} ms -> {picture.name}", flush=True)
        timings = {**result.timings, "client_total_ms": round(total_ms, 3)}
        report["prompts"][name] = {"prompt": prompt, "score": result.score, "timings": timings, "overlay": picture.name}
    (out / "timings.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
