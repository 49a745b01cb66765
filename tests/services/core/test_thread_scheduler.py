"""A process that ends while the scheduler's threads work."""

import subprocess
import sys


def test_a_process_ends_after_the_function_that_runs() -> None:
    code = """
import asyncio, time
from maskwire_core.scheduling.fair_queue import Limits, Requester
from maskwire_core.scheduling.executors import ThreadScheduler
from maskwire_core.scheduling.scheduler import Demand
def work():
    time.sleep(0.5)
    print("done", flush=True)
async def main():
    threads = ThreadScheduler("test", 2, Limits(10))
    asyncio.create_task(threads.run(Demand(Requester("a", 1)), work))
    await asyncio.sleep(0.1)
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
