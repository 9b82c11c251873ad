"""Runs policy: reads image.requested.v1, sends clearances and refusals, answers dry runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from giclee.bus import database, run, settings, telemetry
from giclee.bus.stage import Stage
from giclee.policy import asset_types
from giclee.policy.dry_run import DryRun
from giclee.policy.handle import STAGE, Policy
from giclee.policy.settings import PolicySettings
from giclee.policy.store import Verdicts
from giclee.policy.verdict import Judge
from giclee.schemas import models
from giclee.schemas.events import CancelRequested, ImageCleared, ImageRefused, ImageRequested
from giclee.schemas.strict import InvalidInput

log = telemetry.logger(__name__)


async def main(own: PolicySettings) -> None:
    """Run until a signal. Errors: SystemExit with what is wrong."""
    try:
        judge = judge_of(own.config, Path(own.models_dir))
    except InvalidInput as error:
        sys.exit(f"policy: {error}")
    async with database.connect(own.database, schema="policy") as pool:
        store = Verdicts(pool)
        policy = Policy(judge, store, own.request_ttl_h)
        stage = Stage(
            name=STAGE,
            reads=(ImageRequested,),
            emits=(ImageCleared, ImageRefused, CancelRequested),
            handle=policy.handle,
            refuse=policy.refuse,
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


def judge_of(config: str | None, models_dir: Path) -> Judge:
    """The judge, with the models' prices and the kinds of assets. A broken demo model is the worker's and the router's
    trouble, not policy's.

    Errors: InvalidInput for an operator's file that cannot be used.
    """
    try:
        builtin = models.builtin(models_dir)
    except InvalidInput as error:
        log.warning("demo models left out of limits", error=str(error))
        builtin = ()
    rows, version = models.load(config, builtin)
    return Judge(rows.values(), version if config else "", asset_types.load(config))


if __name__ == "__main__":
    asyncio.run(main(settings.load(PolicySettings)))
