"""Servers run where there are no files."""

import os
from pathlib import Path

import pytest
from maskwire_core.config import EncoderSettings
from maskwire_core.runtime.empty_folder import in_empty_folder, with_absolute_paths


def test_the_working_directory_is_empty_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    with in_empty_folder():
        folder = Path.cwd()
        assert folder != tmp_path
        assert os.listdir() == []
        assert folder.stat().st_mode & 0o077 == 0
    assert Path.cwd() == tmp_path
    assert not folder.exists()


def test_settings_mean_the_same_files_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text("")
    given = EncoderSettings(checkpoint=Path("model.pt"), config="model.yaml", models=Path("~/models"))
    settings = with_absolute_paths(given)
    assert settings.checkpoint == tmp_path / "model.pt"
    assert settings.config == str(tmp_path / "model.yaml")
    assert settings.models == Path.home() / "models"
    packaged = EncoderSettings(config="configs/sam2.1/sam2.1_hiera_t.yaml")
    assert with_absolute_paths(packaged).config == packaged.config  # a name within sam2's package
    assert with_absolute_paths(packaged).redis_url == packaged.redis_url
