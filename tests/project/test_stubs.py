"""The committed stubs are those of protos/."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

from testing.paths import ROOT


def test_stubs_are_up_to_date(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts/protos", tmp_path], check=True, env=environment, capture_output=True)
    fresh = tmp_path / "maskwire/v1"
    names = sorted(path.name for path in fresh.iterdir())
    assert len(names) == 16
    committed = ROOT / "clients/python/maskwire/v1"
    assert sorted(path.name for path in committed.glob("*pb2*")) == names
    _, differing, missing = filecmp.cmpfiles(fresh, committed, names, shallow=False)
    assert (differing, missing) == ([], []), "run scripts/protos"
