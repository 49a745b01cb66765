"""The command lines of the programs whose reports docs/reliability.md quotes."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Amount = TypeVar("Amount", int, float)


def report(
    described: str | None,
    option: str,
    default: Amount,
    run: Callable[[Amount, int], tuple[Sequence[str], Sequence[str], bool]],
) -> None:
    """Runs a program, prints its report, and ends the process.

    Args:
        described: The program's docstring, whose first line describes it.
        option: The option that says how much it does.
        default: How much it does without that.
        run: Takes the amount and a seed. Returns the report's lines, lines that are only printed, and whether all was
            well, on which the exit code depends.
    """
    parser = argparse.ArgumentParser(description=(described or "").splitlines()[0])
    parser.add_argument(option, dest="amount", type=type(default), default=default)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the report's lines, which docs/reliability.md quotes")
    arguments = parser.parse_args()
    lines, more, is_well = run(arguments.amount, arguments.seed)
    print("\n".join([*lines, *more]))
    if arguments.json:
        arguments.json.write_text(json.dumps(list(lines), indent=1) + "\n")
    sys.exit(not is_well)
