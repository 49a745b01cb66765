"""Measures hovering on the page: masks that the browser decodes, against those of a decoder server.

    python -m bench.browser [--hovers 100] [--out bench/results/browser.md]

A hover is timed from the pointer's place to the frame after its mask is drawn, on one page and picture; servers and
browser share the machine. Lines of some megabits a second are a proxy in front of the gateway, which all connections of
the page share. The demo model, at 512 px.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser

from bench.harness import machine
from testing.chromium import Tab, chromium
from testing.paths import ROOT
from testing.processes import free_port
from testing.servers import up

WARM = 40  # hovers before those that count: browsers optimise the runtime meanwhile
LINES_MBIT = (20, 100)
PIECE_BYTES = 1 << 14
READY = "() => app.local.isReady(app.editor.session?.image) || app.local.failure"
HOVER = """async ([x, y]) => {
    const started = performance.now();
    await app.editor.hover(x, y, false);
    await new Promise(requestAnimationFrame);
    return performance.now() - started;
}"""


class Line(threading.Thread):
    """A proxy that passes on so many bits a second of what a server answers.

    Args:
        port: The server's port.
        mbit: Megabits a second; 0 for as many as there are.

    Attributes:
        nbytes: Bytes of answers that were passed on.
    """

    def __init__(self, port: int, mbit: float) -> None:
        super().__init__(daemon=True)
        self.port, self.nbytes = free_port(), 0
        self._server, self._bytes_per_s = port, mbit * 1e6 / 8
        self._free_at = 0.0
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()

    def run(self) -> None:
        """Serves until `stop`."""
        self._loop.run_until_complete(asyncio.start_server(self._connected, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Yields the address of the page through this line."""
        self.start()
        self._ready.wait()
        try:
            yield f"http://127.0.0.1:{self.port}/"
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self.join()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass_on(reader, to_server, False), self._pass_on(from_server, writer, True))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_answer: bool) -> None:
        while piece := await source.read(PIECE_BYTES):
            if is_answer:
                self.nbytes += len(piece)
                if self._bytes_per_s:
                    now = self._loop.time()
                    self._free_at = max(self._free_at, now) + len(piece) / self._bytes_per_s
                    await asyncio.sleep(self._free_at - now)
            sink.write(piece)
            await sink.drain()
        sink.close()


def places(count: int, seed: int) -> list[list[float]]:
    """Random places of the sample, which has 600 x 400 pixels."""
    found: list[list[float]] = np.random.default_rng(seed).uniform((0, 0), (600, 400), (count, 2)).tolist()
    return found


def hovers(tab: Tab, count: int) -> dict[str, float]:
    """Milliseconds of hovers: median and 95th percentile."""
    took = [float(tab.page.evaluate(HOVER, place)) for place in places(WARM + count, 1)][WARM:]
    return {"median_ms": statistics.median(took), "p95_ms": sorted(took)[int(0.95 * (len(took) - 1))]}


def compare(browser: Browser, gateway: int, count: int) -> dict[str, Any]:
    """Hovers on one page, whose masks first the server decodes, then the browser."""
    line = Line(gateway, 0)
    with line.running() as url:
        tab = Tab(browser, url, decode="server")
        tab.open_sample()
        before = line.nbytes
        rows: dict[str, Any] = {"server": hovers(tab, count)}
        rows["server"]["bytes_per_hover"] = (line.nbytes - before) / (WARM + count)
        before = line.nbytes
        tab.page.evaluate("() => app.local.choose(true)")
        tab.page.wait_for_function(READY, timeout=120_000)
        failure = tab.page.evaluate("() => app.local.failure")
        assert not failure, failure
        rows["here"] = hovers(tab, count)
        rows["here"]["first_visit_mb"] = (line.nbytes - before) / 1e6
        rows["threads"] = tab.page.evaluate("async () => (await app.local._starting).threads")
        tab.close()
    return rows


def first_mask_s(browser: Browser, gateway: int, mbit: float) -> float:
    """Seconds from opening the page's sample, for the first time, to the first mask that the browser decodes."""
    with Line(gateway, mbit).running() as url:
        tab = Tab(browser, url, decode="here")
        started = time.monotonic()
        tab.open_sample()
        tab.page.wait_for_function(READY, timeout=120_000)
        tab.page.evaluate(HOVER, [260, 130])
        took = time.monotonic() - started
        tab.close()
    return took


def table(rows: dict[str, Any], lines: dict[str, float]) -> str:
    """Returns the figures as Markdown."""
    here, server = rows["here"], rows["server"]
    return "\n".join(
        [
            "| decoded | median ms | p95 ms | bytes |",
            "|---|---|---|---|",
            f"| by the server | {server['median_ms']:.0f} | {server['p95_ms']:.0f} "
            f"| {server['bytes_per_hover']:.0f} a hover |",
            f"| in the browser, {rows['threads']} threads | {here['median_ms']:.0f} | {here['p95_ms']:.0f} "
            f"| {here['first_visit_mb']:.1f} MB at the first visit |",
            "",
            "| line | s from opening the first image to the first mask of the browser |",
            "|---|---|",
            *(f"| {name} Mbit/s | {seconds:.1f} |" for name, seconds in lines.items()),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hovers", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "browser.md")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]  # by other programs
    with up(gateway=True) as stack, chromium() as browser:
        assert stack.gateway is not None
        gateway = int(stack.gateway.rstrip("/").rsplit(":", 1)[1])
        rows = compare(browser, gateway, arguments.hovers)
        lines = {str(mbit): first_mask_s(browser, gateway, mbit) for mbit in LINES_MBIT}
    about, figures = machine(), table(rows, lines)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        f"# Hovering on the page\n\nGenerated by `python -m bench.browser --hovers {arguments.hovers}` on "
        f"{about['cores']} cores ({about['cpu']}), {about['date']}; load average before: {load:.1f}.\n\n{figures}\n"
    )
    document = {**about, "load_before": load, "rows": rows, "lines_s": lines}
    arguments.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    print(figures)


if __name__ == "__main__":
    main()
