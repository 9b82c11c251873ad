"""What verbs that call the operations service are tested against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import ops_stub
from tests.kit.ops_stub import OpsStub


@pytest.fixture
def ops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OpsStub]:
    """An operations service that answers as a test wants, and the environment that names it."""
    with ops_stub.running() as stub:
        monkeypatch.setenv("GICLEE_OPS_URL", stub.url)
        monkeypatch.setenv("GICLEE_API_KEY", "a-key-of-at-least-16")
        monkeypatch.setenv("GICLEE_STATE_DIR", str(tmp_path))
        yield stub
