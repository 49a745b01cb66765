"""The patches that make the product wrong follow the product's code; scripts/test --mutants runs them."""

import subprocess
from pathlib import Path

import pytest

from testing.mutants import Mutant
from testing.paths import ROOT
from tests.faults.rows import ROWS


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*/mutants/*.patch")), ids=lambda path: path.stem)
def test_a_mutant_applies_and_names_tests(path: Path) -> None:
    mutant = Mutant.read(path)
    assert all((ROOT / name.partition("::")[0]).exists() for name in mutant.tests)
    subprocess.run(["git", "apply", "--check", str(path)], cwd=ROOT, check=True)


def test_each_row_of_faults_has_a_mutant() -> None:
    names = [path.stem for path in (ROOT / "tests" / "faults" / "mutants").glob("*.patch")]
    assert {int(name.split("-")[1]) for name in names} == set(ROWS)
