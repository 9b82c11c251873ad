"""Asking from the command line: what a caller says is what is posted, and nothing that was not said."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from giclee.cli.__main__ import app
from tests.kit.ops_stub import OpsStub

PATH = "/v1/requests"


@pytest.mark.parametrize("verb", [("requests", "create"), ("request",)])
def test_strict_is_said_only_where_it_is_asked_for(
    ops: OpsStub, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    """As a field of the request, also of a dry run; without the flag the default is the service's."""
    monkeypatch.setenv("GICLEE_API_URL", ops.url)
    ops.answers[f"POST {PATH}"] = [{"request_id": "5f0c1d7e-0d52-4a3b-9a51-0b6b0f3f8a11", "state": "pending"}]
    for more in (["--strict"], ["--strict", "--dry-run"], []):
        done = CliRunner().invoke(app, [*verb, "a red circle", "--seed", "7", *more])
        assert done.exit_code == 0, done.output
    asked = {"prompt": "a red circle", "seed": 7}
    told = [{name: body[name] for name in (*asked, "strict") if name in body} for body in ops.bodies(PATH)]
    assert told == [{**asked, "strict": True}, {**asked, "strict": True}, asked]
