"""Manifests: a shipped folder is what its revision says, and fits the repository."""

from pathlib import Path

import pytest

from giclee.models import manifest

MODELS = Path(__file__).parents[3] / "models"
SHIPPED = ("shapes-draft", "shapes-final", "shapes-clip")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_folder_agrees_with_its_manifest(name: str) -> None:
    assert manifest.differences(MODELS / name) == []


def test_the_shipped_folders_are_under_30_mb_and_no_file_over_15() -> None:
    sizes = [path.stat().st_size for name in SHIPPED for path in (MODELS / name).rglob("*") if path.is_file()]
    assert sum(sizes) < 30_000_000
    assert max(sizes) < 15_000_000


def test_a_changed_an_added_and_a_lost_file_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(b"one")
    (folder / "config").write_bytes(b"two")
    manifest.write(folder, steps=4)
    assert manifest.differences(folder) == []
    (folder / "weights").write_bytes(b"three")
    (folder / "more").write_bytes(b"four")
    (folder / "config").unlink()
    assert manifest.differences(folder) == ["config", "more", "weights"]


def test_a_revision_depends_on_contents_and_names_and_not_on_their_order() -> None:
    files = {"b": "2", "a": "1"}
    assert manifest.revision_of(files) == manifest.revision_of({"a": "1", "b": "2"})
    assert manifest.revision_of(files) != manifest.revision_of({"a": "2", "b": "1"})
    assert len(manifest.revision_of(files)) == 40
