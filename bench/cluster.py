"""Simulates clusters: users who click, decoders with caches, encoders, and a store of one or several nodes.

This is a discrete-event simulation in simpy, with the service times (`Times`) that bench.scale measures. Each node of
the store, each decoder and each encoder serves one request after another. Simplifications: the time of a store node
covers its thread and its network, requests are small compared with replies, and nothing fails.
"""

import random
import zlib
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

Process = Generator[Any, Any, Any]


@dataclass(frozen=True)
class Times:
    """Service times in seconds.

    Attributes:
        lookup: The store looks up a name.
        read: The store reads an embedding.
        write: The store writes an embedding.
        prepare: A decoder prepares an embedding that it has read.
        decode: A decoder decodes a click.
        encode: An encoder encodes an image, when batches are full.
    """

    lookup: float
    read: float
    write: float
    prepare: float
    decode: float
    encode: float


@dataclass(frozen=True)
class Cluster:
    """What is deployed, and who uses it.

    Attributes:
        encoders: Number of devices.
        decoders: Number of processes.
        nodes: Number of store nodes, over which embeddings are spread.
        affinity: Whether clients use the same decoder for all clicks on an image.
        cached: Number of embeddings that a decoder's memory holds.
        users: Number of users, who each click on one image after another.
        clicks: Mean number of clicks on an image.
        think_s: Mean time between two clicks of a user, in seconds.
    """

    encoders: int
    decoders: int
    nodes: int
    affinity: bool
    cached: int
    users: int
    clicks: int = 10
    think_s: float = 2.0


@dataclass
class Outcome:
    """What happened in a simulation.

    Attributes:
        click_ms: Milliseconds from each click to its mask.
        open_ms: Milliseconds from each first click on a new image to its mask, including the encoding.
        busy: Utilisation of the busiest store node, and the mean utilisation of decoders and encoders.
        reads: Share of clicks for which the embedding was read from the store.
    """

    click_ms: list[float] = field(default_factory=list)
    open_ms: list[float] = field(default_factory=list)
    busy: dict[str, float] = field(default_factory=dict)
    reads: float = 0

    def quantile(self, times: list[float], part: float) -> float:
        return float(np.quantile(times, part)) if times else float("nan")


class Station:
    """A server with one queue in order of arrival, which adds up the time it has worked."""

    def __init__(self, environment: simpy.Environment) -> None:
        self._environment = environment
        self._free_at = 0.0
        self.busy = 0.0

    def serve(self, seconds: float) -> Any:
        """Returns the event of a request's end. In order of arrival, the end of the last request is all the state."""
        now = self._environment.now
        self._free_at = max(self._free_at, now) + seconds
        self.busy += seconds
        return self._environment.timeout(self._free_at - now)


def simulate(cluster: Cluster, times: Times, clicks: int, seed: int = 1) -> Outcome:
    """Simulates about this many clicks, of which the first fifth is not counted."""
    dice = random.Random(seed)
    environment = simpy.Environment()
    nodes, decoders, encoders = (
        [Station(environment) for _ in range(count)] for count in (cluster.nodes, cluster.decoders, cluster.encoders)
    )
    caches: list[OrderedDict[int, None]] = [OrderedDict() for _ in decoders]
    outcome = Outcome()
    wanted_s = clicks / (cluster.users / cluster.think_s)
    counted_from = wanted_s / 5
    reads = counted = images = 0

    def keep(cache: OrderedDict[int, None], image: int) -> None:
        cache[image] = None
        if len(cache) > cluster.cached:
            cache.popitem(last=False)

    def click(image: int, new: bool) -> Process:
        nonlocal reads, counted
        started = environment.now
        node = nodes[zlib.crc32(b"%d" % image) % cluster.nodes]
        if new:
            # The less loaded of two, which is close to round robin when service times vary little.
            one, other = dice.choice(encoders), dice.choice(encoders)
            encoder = min(one, other, key=lambda station: station._free_at)
            yield encoder.serve(times.encode)
            yield node.serve(times.write)
        where = zlib.crc32(b"decoder %d" % image) if cluster.affinity else dice.getrandbits(30)
        decoder, cache = decoders[where % cluster.decoders], caches[where % cluster.decoders]
        yield node.serve(times.lookup)
        if image in cache:
            cache.move_to_end(image)
        else:
            reads += started >= counted_from
            yield node.serve(times.read)
            yield decoder.serve(times.prepare)
            keep(cache, image)
        yield decoder.serve(times.decode)
        if started >= counted_from:
            counted += 1
            (outcome.open_ms if new else outcome.click_ms).append((environment.now - started) * 1e3)

    def user(begins_s: float) -> Process:
        nonlocal images
        yield environment.timeout(begins_s)
        images += 1
        image = images
        new = dice.random() < 1 / cluster.clicks
        if not new and cluster.affinity and cluster.cached:  # most users begin in the middle of an image
            keep(caches[zlib.crc32(b"decoder %d" % image) % cluster.decoders], image)
        while True:
            yield environment.process(click(image, new))
            yield environment.timeout(dice.expovariate(1 / cluster.think_s))
            if new := dice.random() < 1 / cluster.clicks:
                images += 1
                image = images

    for _ in range(cluster.users):
        if (begins_s := dice.expovariate(1 / cluster.think_s)) < wanted_s:  # clicks are spread evenly
            environment.process(user(begins_s))
    environment.run(until=wanted_s)
    outcome.busy = {
        "store": min(1.0, max(node.busy for node in nodes) / wanted_s),
        "decoders": min(1.0, sum(one.busy for one in decoders) / len(decoders) / wanted_s),
        "encoders": min(1.0, sum(one.busy for one in encoders) / len(encoders) / wanted_s),
    }
    outcome.reads = reads / max(1, counted)
    return outcome
