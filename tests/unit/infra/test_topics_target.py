"""Which pools' topics are made: those that GICLEE_POOLS names."""

from __future__ import annotations

import pytest

from giclee.bus.stage import Stage
from giclee.infra.topics import target_from_env
from giclee.infra.trouble import Trouble
from giclee.schemas import topics
from giclee.schemas.events import ImageRouted


@pytest.mark.parametrize(("text", "pools"), [(None, ("local", "hosted")), ("local-now, local", ("local-now", "local"))])
def test_topics_and_groups_are_those_of_the_pools_there_are(
    text: str | None, pools: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of the operator's own has its topics, its workers' group, and readers of every pool read it."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    monkeypatch.delenv("GICLEE_POOLS", raising=False)
    if text is not None:
        monkeypatch.setenv("GICLEE_POOLS", text)
    target = target_from_env()
    assert target.pools == pools
    reader = Stage(name="intake.status", reads=(ImageRouted,), emits=(), handle=lambda _: _, pools=target.pools)
    routed = {f"image.routed.{pool}.v1" for pool in pools}
    assert set(reader.topics()) == routed <= {row.name for row in topics.all_topics(target.pools)}
    assert routed <= set(topics.groups(target.pools)[reader.group])


def test_what_cannot_be_a_pool_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is made."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    monkeypatch.setenv("GICLEE_POOLS", "local,Local Now")
    with pytest.raises(Trouble, match="'Local Now'"):
        target_from_env()
