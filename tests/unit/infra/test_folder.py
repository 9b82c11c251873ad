"""The state folder: secrets that stay, a record that is never half, one lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from giclee.infra.local.folder import Folder, ProcessRecord, Record, checkout, folder_from_env
from giclee.infra.local.parts import client_env
from giclee.infra.local.ports import Ports
from giclee.infra.local.services import Wanted


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / ".giclee")
    made.make()
    return made


def test_secrets_are_made_once_and_kept_closed(folder: Folder) -> None:
    """Two stacks have different secrets, one stack always the same, and only its owner reads them."""
    other = Folder(folder.root / "other")
    other.make()
    assert folder.secrets() == folder.secrets() != other.secrets()
    assert (folder.root / "secrets.json").stat().st_mode & 0o077 == 0


def test_the_record_is_read_as_it_was_written(folder: Folder) -> None:
    """Everything that the supervisor knows survives the file."""
    record = Record(phase="running", pid=4, processes=[ProcessRecord(name="kafka", pid=5, restarts=2)])
    folder.write_record(record)
    assert folder.record() == record


def test_there_is_one_lock(folder: Folder) -> None:
    """A second supervisor does not get it, and it is free again when the first lets go."""
    first = folder.lock()
    assert first is not None and folder.lock() is None and folder.is_locked()
    first.close()
    assert not folder.is_locked()


def test_the_env_file_needs_no_quotes(folder: Folder) -> None:
    """A shell and any dotenv reader see the same values."""
    values = client_env(folder, Ports(), Wanted(registry=True))
    folder.write_env(values)
    lines = folder.env_file.read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines) == values
    assert all(not set(value) & set(" \"'$`\\#;&") for value in values.values())
    assert values["SCHEMA_REGISTRY_URL"] == "http://127.0.0.1:47081/apis/ccompat/v7"


def test_the_folder_is_the_checkout_s_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any folder of a checkout the same state is found; GICLEE_STATE_DIR wins."""
    (tmp_path / ".git").mkdir()
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.delenv("GICLEE_STATE_DIR", raising=False)
    assert checkout() == tmp_path and folder_from_env().root == tmp_path / ".giclee"
    monkeypatch.setenv("GICLEE_STATE_DIR", str(tmp_path / "elsewhere"))
    assert folder_from_env().root == tmp_path / "elsewhere"
