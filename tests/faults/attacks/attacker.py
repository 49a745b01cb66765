"""An attacker, as a process: python -m tests.faults.attacks.attacker, which `lab.Lab` starts.

Reads a line of JSON with the names of attacks and a target, makes them at the same time, and prints what came of them.
It has a lower priority than the servers: an attacker has machines of its own, and must not slow them down by using
theirs.
"""

import asyncio
import json
import os
import resource
import sys

from . import bodies, connections, downloads, handshakes, masks, messages, stored, tracks, uploads, web  # noqa: F401 - they list their attacks
from .kinds import ATTACKS, Attack, Outcomes, Target

_LONGEST_S = 30
_FILES = 10_000  # more than a server has
_NICENESS = 5


async def _all(attacks: list[Attack], target: Target) -> dict[str, Outcomes]:
    return dict(
        zip((one.name for one in attacks), await asyncio.gather(*(_one(one, target) for one in attacks)), strict=True)
    )


async def _one(attack: Attack, target: Target) -> Outcomes:
    try:
        return await asyncio.wait_for(attack.run(target), target.seconds + _LONGEST_S)
    except Exception as error:  # one attack that fails in a way of its own must not end the others
        return Outcomes([f"{type(error).__name__} {error}"[:100].strip()])


def main() -> None:
    os.nice(_NICENESS)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, most), most))
    named = {attack.name: attack for attack in ATTACKS}
    for line in sys.stdin:
        asked = json.loads(line)
        target = Target(**asked["target"])
        print(json.dumps(asyncio.run(_all([named[name] for name in asked["names"]], target))), flush=True)


if __name__ == "__main__":
    main()
