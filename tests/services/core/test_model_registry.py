"""The model registry, and downloads from a local server."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from maskwire.cli.free_ports import free_port
from maskwire_core.models import registry
from maskwire_core.models.cli import app as models_app
from maskwire_core.models.downloads import download
from maskwire_core.models.registry import PUBLISHED, ModelError
from typer.testing import CliRunner

from testing import download_site, small_model
from testing.download_site import Site
from testing.processes import wait_until

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def site() -> Iterator[Site]:
    with download_site.serving(CONTENT) as served:
        yield served


@pytest.fixture
def model(site: Site) -> registry.PublishedModel:
    digest = hashlib.sha256(CONTENT).hexdigest()
    known = PUBLISHED["sam2.1_hiera_tiny"]
    return dataclasses.replace(known, url=f"{site.url}/model.pt", sha256=digest, size_bytes=len(CONTENT))


def test_a_good_file_is_pulled_once(site: Site, model: registry.PublishedModel, tmp_path: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    path = download(model, tmp_path / "deep", progress=lambda done, total: steps.append((done, total)))
    assert path == tmp_path / "deep" / "sam2.1_hiera_tiny.pt"
    assert path.read_bytes() == CONTENT
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    download(model, tmp_path / "deep")
    assert len(site.requests) == 1


def test_a_size_that_is_not_known_is_no_hindrance(model: registry.PublishedModel, tmp_path: Path) -> None:
    assert download(dataclasses.replace(model, size_bytes=None), tmp_path).read_bytes() == CONTENT


def test_interruptions_and_server_errors_are_overcome(
    site: Site, model: registry.PublishedModel, tmp_path: Path
) -> None:
    site.cuts = [1_000_000, -503, 500_000]
    assert download(model, tmp_path, pause_s=0).read_bytes() == CONTENT
    assert site.requests == [None, "bytes=1000000-", "bytes=1000000-", "bytes=1500000-"]


def test_what_arrived_is_kept_for_the_next_command(site: Site, model: registry.PublishedModel, tmp_path: Path) -> None:
    site.cuts = [100_000, 100_000, 100_000, 100_000]
    with pytest.raises(ModelError, match="goes on from there"):
        download(model, tmp_path, pause_s=0)
    assert not (tmp_path / "sam2.1_hiera_tiny.pt").exists()
    assert download(model, tmp_path).read_bytes() == CONTENT
    assert site.requests[-1] == "bytes=400000-"


def test_a_server_without_ranges_sends_all_again(site: Site, model: registry.PublishedModel, tmp_path: Path) -> None:
    site.cuts, site.ranges = [100_000], False
    assert download(model, tmp_path, pause_s=0).read_bytes() == CONTENT


@pytest.mark.parametrize("known_size", [True, False])
def test_wrong_content_is_refused_and_removed(
    site: Site, model: registry.PublishedModel, tmp_path: Path, known_size: bool
) -> None:
    wanted = model if known_size else dataclasses.replace(model, size_bytes=None)
    site.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with pytest.raises(ModelError, match=f"SHA-256 [0-9a-f]{{64}} instead of {model.sha256}"):
        download(wanted, tmp_path)
    site.content = CONTENT[:-7]
    with pytest.raises(ModelError, match=r"truncated|SHA-256"):
        download(wanted, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_file_and_no_network_name_the_remedy(site: Site, model: registry.PublishedModel, tmp_path: Path) -> None:
    site.cuts = [-404]
    with pytest.raises(ModelError, match=r"404.*--mirror"):
        download(model, tmp_path)
    nobody = f"http://127.0.0.1:{free_port()}/models/"
    with pytest.raises(ModelError, match=r"put the file at .*sam2.1_hiera_tiny.pt"):
        download(model, tmp_path, mirror=nobody, pause_s=0)


def test_of_two_processes_one_downloads(site: Site, model: registry.PublishedModel, tmp_path: Path) -> None:
    site.cuts, site.hangs = [1_000_000], True
    with ThreadPoolExecutor() as threads:  # the lock is that of an open file, so that threads stand for processes
        first = threads.submit(download, model, tmp_path, pause_s=0)
        wait_until(lambda: site.requests == [None])
        second = threads.submit(download, model, tmp_path, pause_s=0)
        site.closing.set()  # the first goes on
        assert first.result() == second.result()
    assert site.requests == [None, "bytes=1000000-"]
    assert [file.name for file in tmp_path.iterdir()] == ["sam2.1_hiera_tiny.pt"]


def test_a_mirror_has_the_file_under_its_own_name(site: Site, model: registry.PublishedModel, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(model, url=f"http://127.0.0.1:{free_port()}/model.pt")
    download(elsewhere, tmp_path, mirror=f"{site.url}/models/")
    assert site.paths == ["/models/sam2.1_hiera_tiny.pt"]


def test_a_damaged_file_that_is_there_is_named(model: registry.PublishedModel, tmp_path: Path) -> None:
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match="has 2999999 bytes instead of 3000000"):
        download(model, tmp_path)


def test_adding_listing_and_verifying(tmp_path: Path) -> None:
    run = CliRunner()
    checkpoint, folder = tmp_path / "mine.pt", ("--models", str(tmp_path / "models"))
    content = (resources.files("maskwire_encoder") / "weights" / "demo.safetensors").read_bytes()
    checkpoint.write_bytes(content)
    registry.add(tmp_path / "models", registry.describe("mine", small_model.options(tmp_path)["config"], checkpoint))
    listed = json.loads(run.invoke(models_app, ["list", "--json", *folder]).stdout)["models"]
    assert [row["name"] for row in listed] == ["demo", *PUBLISHED, "mine"]
    assert listed[-1]["here"]
    own = registry.added(tmp_path / "models", "mine")
    assert own is not None
    registry.verify(checkpoint, own)
    checkpoint.write_bytes(content[1:])
    with pytest.raises(ModelError, match="SHA-256"):
        registry.verify(checkpoint, own)
    for options, message in (
        (("--checkpoint", "http://host/x.pt"), "needs --sha256"),
        (("--checkpoint", "http://host/x.pt", "--sha256", "abc"), "is not 64 hexadecimal digits"),
        (("--checkpoint", "http://host/x.zip", "--sha256", "0" * 64), "does not name a checkpoint"),
        (("--checkpoint", str(checkpoint), "--sha256", "0" * 64), f"instead of --sha256 {'0' * 64}"),
    ):
        refused = run.invoke(models_app, ["add", "other", "--config", "c", *options, *folder])
        assert refused.exit_code == 1
        assert message in refused.output
    for name in ("demo", "hiera_tiny", "../x", ""):
        refused = run.invoke(models_app, ["add", name, "--config", "c", "--checkpoint", str(checkpoint), *folder])
        assert refused.exit_code == 1
        assert "cannot be a model's name" in refused.output
    wrong = run.invoke(models_app, ["verify", str(checkpoint), "--name", "hiera_tiny"])
    assert wrong.exit_code == 1
    assert "bytes instead of 156008466" in wrong.output
    by_name = run.invoke(models_app, ["verify", "mine", *folder])
    assert by_name.exit_code == 1
    assert "SHA-256" in by_name.output
    checkpoint.write_bytes(content)
    for arguments in (["mine"], []):
        fine = run.invoke(models_app, ["verify", *arguments, *folder])
        assert fine.exit_code == 0, fine.output
        assert "mine, SHA-256 as when it was added" in fine.output
    for what, message in (
        ("sam2.1_hiera_huge", "did you mean 'sam2.1_hiera_large'?"),
        ("none.pt", "no such file: none.pt"),
        ("hiera_tiny", "no checkpoint at"),
    ):
        refused = run.invoke(models_app, ["verify", what, *folder])
        assert refused.exit_code == 1
        assert message in refused.output
    assert run.invoke(models_app, ["pull", "nonsense"]).exit_code == 1
