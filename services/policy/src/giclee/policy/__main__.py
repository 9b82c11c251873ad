"""Runs policy: reads image.requested.v1, sends clearances and refusals, answers dry runs."""

from __future__ import annotations

import asyncio
import sys

from giclee.bus import database, run, settings
from giclee.bus.stage import Stage
from giclee.policy.dry_run import DryRun
from giclee.policy.handle import STAGE, Policy
from giclee.policy.settings import PolicySettings
from giclee.policy.store import Verdicts
from giclee.policy.verdict import Judge
from giclee.schemas import models
from giclee.schemas.events import ImageCleared, ImageRefused, ImageRequested
from giclee.schemas.strict import InvalidInput


async def main(own: PolicySettings) -> None:
    """Run until a signal. Errors: SystemExit with what is wrong."""
    try:
        judge = Judge(*_own_models(own.config))
    except InvalidInput as error:
        sys.exit(f"policy: {error}")
    async with database.connect(own.database, schema="policy") as pool:
        store = Verdicts(pool)
        stage = Stage(
            name=STAGE,
            reads=(ImageRequested,),
            emits=(ImageCleared, ImageRefused),
            handle=Policy(judge, store, own.request_ttl_h).handle,
            concurrency=own.concurrency,
        )
        await run.serve(
            run.Service(
                name="policy",
                settings=own,
                stages=(stage,),
                background=(store.keep_pruned,),
                checks={"database": store.check},
                internal={"/internal/verdict": DryRun(judge, own.request_ttl_h).verdict},
            )
        )


def _own_models(path: str | None) -> tuple[tuple[models.Model, ...], str]:
    rows, version = models.load(path, ())
    return tuple(rows.values()), version


if __name__ == "__main__":
    asyncio.run(main(settings.load(PolicySettings)))
