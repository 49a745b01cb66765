"""Checks that tests fail when the product is wrong: applies each patch of a folder to a copy, and runs its tests.

    python -m testing.mutants tests/unit/mutants [NAME ...]

A patch is a file NAME.patch whose first lines, before the diff, say in one sentence what is wrong with the product;
after `Caught by:` which tests must fail, as arguments of pytest (quoted where they have spaces); and after
`Fails with:`, if anything, a text that pytest then shows: a test that fails for another reason does not count. Ends
with 1 if any mutant survives.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_PACKAGES = (
    "clients/python",
    "clients/web",
    "clients/adapters",
    "services/core",
    "services/encoder",
    "services/decoder",
    "services/tracker",
    "services/gateway",
)
_FAILED_TESTS = 1  # pytest's exit code if tests ran and some failed


@dataclass(frozen=True)
class Mutant:
    """A patch that makes the product wrong."""

    path: Path
    fault: str  # what is wrong then
    tests: tuple[str, ...]  # arguments of pytest
    shown: str = ""  # a text that pytest shows when they fail

    @classmethod
    def read(cls, path: Path) -> "Mutant":
        """Reads a patch's first lines.

        Raises:
            ValueError: They do not say what is wrong, or which tests notice.
        """
        fault, _, rest = path.read_text().partition("\ndiff ")[0].partition("Caught by:")
        tests, _, shown = rest.partition("Fails with:")
        if not fault.strip() or not tests.strip():
            raise ValueError(f"{path} must begin with a sentence and a line 'Caught by: TESTS'")
        return cls(path, " ".join(fault.split()), tuple(shlex.split(tests)), shown.strip())


def outcome(mutant: Mutant) -> str:
    """Runs a mutant's tests. Returns "caught", or in words why not."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        _copy_tree(copy)
        applied = subprocess.run(["git", "apply", str(mutant.path)], cwd=copy, capture_output=True, text=True)
        if applied.returncode:
            return f"the patch does not apply: {applied.stderr.strip()}"
        # Before the installed packages, also in the processes that the tests start.
        path = os.pathsep.join([*(str(copy / package) for package in _PACKAGES), str(copy)])
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    said = f"{ran.stdout[-4000:]}{ran.stderr[-500:]}"
    if ran.returncode == _FAILED_TESTS:
        return "caught" if mutant.shown in ran.stdout else f"the tests failed for another reason:\n{said}"
    return "survived" if ran.returncode == 0 else f"the tests did not run:\n{said}"


def _copy_tree(target: Path) -> None:
    """Copies what git tracks, and makes it a repository of its own, so that patches apply there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if name.startswith(("services/", "clients/", "examples/", "testing/", "tests/", "protos/")) or "/" not in name:
            source, copy = ROOT / name, target / name
            if source.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of patches")
    parser.add_argument("names", nargs="*", help="names of patches, without .patch; all if none is given")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.resolve().glob("*.patch"))
    if unknown := set(arguments.names) - {path.stem for path in paths}:
        parser.error(f"no such patch: {', '.join(sorted(unknown))}; there are {', '.join(path.stem for path in paths)}")
    mutants = [Mutant.read(path) for path in paths if not arguments.names or path.stem in arguments.names]
    survived = 0
    for number, mutant in enumerate(mutants, 1):
        started = time.monotonic()
        result = outcome(mutant)
        survived += result != "caught"
        took_s = time.monotonic() - started
        print(f"[{number}/{len(mutants)}] {mutant.path.stem}: {result} ({took_s:.0f} s). {mutant.fault}", flush=True)
    print(f"{len(mutants) - survived} of {len(mutants)} mutants caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
