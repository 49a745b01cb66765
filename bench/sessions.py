"""Measures many people who click at once on one decoder: their latencies, and whether all are served alike.

    python -m bench.sessions [--sessions 64] [--seconds 60] [--think-s 1] [--out bench/results/sessions.md]

Each session clicks, thinks and clicks again; it undoes every fourth click and begins a new object after a dozen. Every
fourth session hovers while it thinks. A second run, half as long, has no thinking and hovering: sessions click as fast
as replies come. One decoder serves the demo model; the callers run on the same machine.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskwire import AsyncClient, AsyncSession, MaskwireError
from rich.console import Console

from bench.harness import machine
from testing.paths import COFFEE, ROOT
from testing.servers import up

IMAGES = 8
CONNECTIONS = 8  # shared by the sessions, as by the users of a few gateways


@dataclass
class Person:
    """What happened in one session.

    Attributes:
        latencies_ms: Milliseconds until the reply to each click and undo that was not refused.
        hovers: Number of hovers that were shown, and that were superseded.
        refused: Number of refusals by reason.
    """

    latencies_ms: list[float] = field(default_factory=list)
    hovers: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


async def use(session: AsyncSession, person: Person, seconds: float, think_s: float, hovers: bool, seed: int) -> None:
    """Uses a session as one person does.

    Args:
        session: The open session.
        person: Where the outcome is recorded.
        seconds: How long to work.
        think_s: Mean time between a reply and the next click.
        hovers: Whether to hover while thinking.
        seed: Seed of the random choices.
    """
    choose = random.Random(seed)
    width, height = session.image.width_px, session.image.height_px
    end = time.monotonic() + seconds
    await asyncio.sleep(choose.uniform(0, think_s))
    for count in itertools.count(1):
        if time.monotonic() > end:
            return
        place = choose.uniform(0, width), choose.uniform(0, height)
        started = time.perf_counter()
        try:
            await (session.undo() if count % 4 == 0 else session.click(*place, positive=choose.random() > 0.3))
            person.latencies_ms.append((time.perf_counter() - started) * 1e3)
        except MaskwireError as error:
            person.refused[error.reason or type(error).__name__] += 1
        if count % 12 == 0:
            session.new_object()
        thinking = choose.uniform(0.5, 1.5) * think_s
        if hovers and think_s:
            previews = []
            for _ in range(int(thinking / 0.03)):
                previews.append(session.hover(choose.uniform(0, width), choose.uniform(0, height)))
                await asyncio.sleep(0.03)
            for preview in await asyncio.gather(*previews):
                person.hovers["superseded" if preview is None else "shown"] += 1
        else:
            await asyncio.sleep(thinking)


async def crowd(stack: Any, count: int, seconds: float, think_s: float, hovering: bool) -> list[Person]:
    """Lets many people work at the same time, and returns what happened to each."""
    people = [Person() for _ in range(count)]
    clients = [AsyncClient(stack.encoder, stack.decoder) for _ in range(CONNECTIONS)]
    sessions = [
        clients[number % CONNECTIONS].session(COFFEE, image_id=f"photo-{number % IMAGES}") for number in range(count)
    ]
    for session in sessions:
        await session.__aenter__()
    await asyncio.gather(
        *(
            use(session, person, seconds, think_s, hovering and number % 4 == 0, number)
            for number, (session, person) in enumerate(zip(sessions, people, strict=True))
        )
    )
    for session in sessions:
        await session.close()
    for client in clients:
        await client.close()
    return people


def summary(people: list[Person], seconds: float) -> dict[str, Any]:
    """Returns percentiles over all clicks, and how far the worst session is from the median one."""
    every = sorted(latency for person in people for latency in person.latencies_ms)
    medians = [statistics.median(person.latencies_ms) for person in people if person.latencies_ms]
    counts = [len(person.latencies_ms) for person in people]
    hovers = sum((person.hovers for person in people), Counter())
    return {
        "answered": len(every),
        "refused": dict(sum((person.refused for person in people), Counter())),
        "per_s": len(every) / seconds,
        **{f"p{q}_ms": every[min(len(every) - 1, len(every) * q // 100)] for q in (50, 90, 95, 99)},
        "max_ms": every[-1],
        "slowest_session_over_median": max(medians) / statistics.median(medians),
        "fewest_answers_over_median": min(counts) / statistics.median(counts),
        "hovers_shown": hovers["shown"],
        "hovers_superseded": hovers["superseded"],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Returns the summaries as a Markdown table."""
    lines = [
        "| sessions | clicks answered (refused) | a second | p50 | p90 | p95 | p99 | max, ms "
        "| slowest session / median | fewest answers / median | hovers shown, superseded |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['answered']} ({sum(row['refused'].values())}) | {row['per_s']:.0f} | {row['p50_ms']:.0f} "
        f"| {row['p90_ms']:.0f} | {row['p95_ms']:.0f} | {row['p99_ms']:.0f} | {row['max_ms']:.0f} "
        f"| {row['slowest_session_over_median']:.2f} | {row['fewest_answers_over_median']:.2f} "
        f"| {row['hovers_shown']}, {row['hovers_superseded']} |"
        for name, row in rows.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think-s", type=float, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "sessions.md")
    arguments = parser.parse_args()
    count, seconds = arguments.sessions, arguments.seconds
    rows: dict[str, dict[str, Any]] = {}
    load = os.getloadavg()[0]  # by other programs
    with up() as stack:
        for name, length, think_s in (
            (f"{count}, thinking {arguments.think_s:g} s", seconds, arguments.think_s),
            (f"{count}, without a pause", seconds / 2, 0.0),
        ):
            with Console(stderr=True).status(f"{name}, for {length:g} s"):
                people = asyncio.run(crowd(stack, count, length, think_s, hovering=think_s > 0))
            rows[name] = summary(people, length)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    command = f"python -m bench.sessions --sessions {count} --seconds {seconds:g} --think-s {arguments.think_s:g}"
    about = machine()
    arguments.out.write_text(
        f"# Sessions on one decoder\n\n`{command}` on {about['cores']} cores ({about['cpu']}), {about['date']}; "
        f"servers and callers on the same machine, demo model. Load average before: {load:.1f}.\n\n{table(rows)}\n"
    )
    document = {"command": command, **about, "load_before": load, "rows": rows}
    arguments.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
