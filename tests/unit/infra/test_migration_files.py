"""Migration files are read by service and number, and a wrong name is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from giclee.infra.migrate import read
from giclee.infra.trouble import Trouble


def write(root: Path, service: str, name: str) -> None:
    (root / service / "sql").mkdir(parents=True, exist_ok=True)
    (root / service / "sql" / name).write_text("select 1")


def test_files_are_in_order(tmp_path: Path) -> None:
    """By service, then by number, whatever the file system says."""
    for name in ("0010_c.sql", "0002_b.sql", "0001_a.sql"):
        write(tmp_path, "policy", name)
    write(tmp_path, "intake", "0001_z.sql")
    assert [(one.service, one.number) for one in read(tmp_path)] == [
        ("intake", 1),
        ("policy", 1),
        ("policy", 2),
        ("policy", 10),
    ]


@pytest.mark.parametrize("name", ["1_a.sql", "0001-a.sql", "0001_A.sql", "notes.sql"])
def test_a_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    """A file that would silently never run is named."""
    write(tmp_path, "policy", name)
    with pytest.raises(Trouble, match="NNNN_what_it_does"):
        read(tmp_path)


def test_a_number_is_used_once(tmp_path: Path) -> None:
    """Two branches that both added 0002 are told, not ordered by accident."""
    write(tmp_path, "policy", "0002_a.sql")
    write(tmp_path, "policy", "0002_b.sql")
    with pytest.raises(Trouble, match="0002 is taken"):
        read(tmp_path)


def test_every_migration_of_ours_can_be_read() -> None:
    """The services' own files keep to the rules."""
    read(Path(__file__).parents[3] / "services")
