"""Measures masks that the browser decodes on the page, against those of a decoder server.

    python -m bench.browser [--hovers 100] [--pages 50] [--megapixels 100] [--out bench/results/browser.md]

Three models: the demo model at 512 px and SAM 2.1 tiny with seeded random weights at 1024 px, both stored as fp16; and
the demo model's weights at 1024 px, stored as klt, for which random weights give no measure. What is measured is
written at once, so that a run that is broken off leaves its first rows.
Servers and browser share the machine. Lines of some megabits a second are a proxy in front of the gateway, which all
connections of the page share.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Browser

from bench.browser import hovering, many_pages, memory, visits
from bench.harness import machine
from testing import small_model
from testing.chromium import chromium
from testing.paths import ROOT
from testing.reference.predictor import build_tiny
from testing.servers import Up, up

LINES_MBIT = (20, 100)
HOVERS_PER_S = 2  # on each of many pages
SMALL_MEGAPIXELS = 0.25
STARTED = time.monotonic()


def say(text: str) -> None:
    """Tells how far the measurement is."""
    print(f"{time.monotonic() - STARTED:5.0f} s: {text}", flush=True)


def models(folder: Path) -> dict[str, tuple[str, ...]]:
    """The options of `maskwire up` for each model, by what it is called in the tables. Writes a checkpoint."""
    checkpoint = folder / "sam2.1_hiera_tiny.pt"
    torch.save({"model": build_tiny().state_dict()}, checkpoint)
    demo = small_model.options(folder, 1024)
    demo_at_1024 = [word for name in ("model", "config", "checkpoint") for word in (f"--{name}", demo[name])]
    return {
        "demo, 512 px": (),
        "SAM 2.1 tiny, 1024 px": ("--model", "sam2.1_hiera_tiny", "--checkpoint", str(checkpoint)),
        "demo, 1024 px, klt": ("--store-codec", "klt", *demo_at_1024),
    }


def port(stack: Up) -> int:
    """The gateway's port."""
    assert stack.gateway is not None
    return int(stack.gateway.rstrip("/").rsplit(":", 1)[1])


def of_model(browser: Browser, stack: Up, hovers: int) -> dict[str, Any]:
    """Hovers, lines and visits of one model."""
    gateway = port(stack)
    rows = hovering.compare(browser, gateway, hovers)
    say("hovers are measured")
    rows["first_mask_s"] = {str(mbit): hovering.first_mask_s(browser, gateway, mbit) for mbit in LINES_MBIT}
    with stack.client() as client:
        rows["visits"] = [asdict(visits.visit(browser, client, gateway, form)) for form in ("compact", "half")]
    return rows


def of_pages(stack: Up, pages: int, seconds: float) -> dict[str, Any]:
    """Many pages at once, whose masks first the server decodes, then each page."""
    assert stack.gateway is not None
    pid = next(pid for name, pid in stack.pids.items() if name.startswith("decoder"))
    rows = {}
    for decode in ("server", "here"):
        with chromium(f"--renderer-process-limit={many_pages.MOST_PROCESSES}") as browser:
            rows[decode] = many_pages.hover_together(
                browser, stack.gateway, pid, pages, HOVERS_PER_S, seconds, decode, say
            )
    return rows


def of_memory(browser: Browser, stack: Up, folder: Path, megapixels: float) -> dict[str, Any]:
    """The page's memory with a small picture and a large one."""
    assert stack.gateway is not None
    return {
        f"{size:g}": {
            decode: memory.of_picture(browser, stack.gateway, folder, size, decode) for decode in ("server", "here")
        }
        for size in (SMALL_MEGAPIXELS, megapixels)
    }


def hover_table(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| model | decoded | median ms | p95 ms | bytes a hover |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        for where, label in (("server", "by the server"), ("here", f"in the browser, {row['threads']} threads")):
            one = row[where]
            lines.append(
                f"| {name} | {label} | {one['median_ms']:.0f} | {one['p95_ms']:.0f} | {one['bytes_per_hover']:.0f} |"
            )
    return lines


def visit_table(rows: dict[str, Any]) -> list[str]:
    columns = " | ".join(f"s to the first mask at {mbit} Mbit/s" for mbit in LINES_MBIT)
    lines = [
        "| model | weights | first visit, MB | next picture, MB | logits off by up to | on another side of 0 "
        f"| {columns} |",
        "|" + "---|" * (6 + len(LINES_MBIT)),
    ]
    for name, row in rows.items():
        for one in row["visits"]:
            seconds = row["first_mask_s"].values() if one["weights"] == "compact" else ["" for _ in LINES_MBIT]
            lines.append(
                f"| {name} | {one['weights']} | {one['first_bytes'] / 1e6:.1f} | {one['next_bytes'] / 1e6:.1f} "
                f"| {one['worst_logit']:.2g} | {one['flipped']:.2g} "
                + "".join(f"| {each:.1f} " if each else "| " for each in seconds)
                + "|"
            )
    return lines


def page_table(rows: dict[str, Any]) -> list[str]:
    if not rows:
        return []
    lines = [
        f"| pages that ask for {HOVERS_PER_S} hovers a second each, decoded | pages | hovers | median ms "
        "| s of processor time of the decoder server | while nobody hovers | ms more a hover | MiB of memory a page |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for where, label in (("server", "by the server"), ("here", "in the browser")):
        row = rows[where]
        more_ms = 1e3 * max(0, row["decoder_cpu_s"] - row["decoder_idle_cpu_s"]) / row["hovers"]
        lines.append(
            f"| {label} | {row['pages']} | {row['hovers']} | {row['median_ms']:.0f} | {row['decoder_cpu_s']:.2f} "
            f"| {row['decoder_idle_cpu_s']:.2f} | {more_ms:.1f} | {row['mib_of_a_page']:.0f} |"
        )
    return lines


def memory_table(rows: dict[str, Any]) -> list[str]:
    if not rows:
        return []
    return [
        "| picture | decoded | MiB of the page's process | of these JavaScript's heap |",
        "|---|---|---|---|",
        *(
            f"| {size} megapixels | {label} | {row[where]['resident_mib']:.0f} | {row[where]['heap_mib']:.0f} |"
            for size, row in rows.items()
            for where, label in (("server", "by the server"), ("here", "in the browser"))
        ),
    ]


def write(out: Path, command: str, document: dict[str, Any]) -> None:
    """Writes what has been measured so far: a page of tables, and a file of JSON beside it."""
    tables = [
        hover_table(document["models"]),
        visit_table(document["models"]),
        page_table(document["pages"]),
        memory_table(document["memory"]),
    ]
    figures = "\n\n".join("\n".join(table) for table in tables if table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        f"# Decoding on the page\n\nGenerated by `{command}` on {document['cores']} cores ({document['cpu']}), "
        f"{document['date']}; load average before: {document['load_before']:.1f}. Browser and servers share the "
        "machine, as people's own machines and servers would not: many pages at once wait for its cores, so that of "
        "these the processor time tells, and not how long a hover takes. They are tabs of one browser, with a thread "
        "each. SAM 2.1 tiny has random weights. Embeddings are stored as fp16 (8.4 MB at 1024 px), unless klt is "
        "said.\n\n"
        f"{figures}\n"
    )
    out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hovers", type=int, default=100)
    parser.add_argument("--pages", type=int, default=50, help="pages on which people hover at the same time")
    parser.add_argument("--seconds", type=float, default=20, help="how long they do")
    parser.add_argument("--megapixels", type=float, default=100, help="size of the large picture")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "browser.md")
    arguments = parser.parse_args()
    command = (
        f"python -m bench.browser --hovers {arguments.hovers} --pages {arguments.pages} "
        f"--seconds {arguments.seconds:g} --megapixels {arguments.megapixels:g}"
    )
    load = os.getloadavg()[0]  # by other programs
    document: dict[str, Any] = {**machine(), "load_before": load, "models": {}, "pages": {}, "memory": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, options in models(folder).items():
            say(f"{name}: starting")
            with up(*options, gateway=True) as stack, chromium() as browser:
                say(f"{name}: measuring")
                document["models"][name] = of_model(browser, stack, arguments.hovers)
            write(arguments.out, command, document)
        with up(gateway=True) as stack:
            say("memory of the page")
            with chromium() as browser:
                document["memory"] = of_memory(browser, stack, folder, arguments.megapixels)
            write(arguments.out, command, document)
            say(f"{arguments.pages} pages")
            document["pages"] = of_pages(stack, arguments.pages, arguments.seconds)
            write(arguments.out, command, document)
    say("done")
    print(arguments.out.read_text())


if __name__ == "__main__":
    main()
