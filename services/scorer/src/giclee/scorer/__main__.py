"""The scorer process: `python -m giclee.scorer`. Exits 2 for bad settings and a bad operator's file, 3 for models that
cannot be used."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from giclee.bus import blobs, database, kafka, run, settings
from giclee.bus.run import Background
from giclee.bus.table import Table
from giclee.schemas.events import GateSet
from giclee.schemas.strict import InvalidInput
from giclee.scorer import configured, dimensions, stations
from giclee.scorer.decode import decoding
from giclee.scorer.dimension import NotUsable
from giclee.scorer.dimensions import content
from giclee.scorer.evaluate import PATH, Evaluations
from giclee.scorer.gate import Gates
from giclee.scorer.handle import Scorer
from giclee.scorer.judge import Judge
from giclee.scorer.lane import Station, run_together
from giclee.scorer.reference import References
from giclee.scorer.settings import ScorerSettings
from giclee.scorer.store import SCHEMA, Drifts, Store
from giclee.scorer.warm import WarmUp
from giclee.scorer.watch import Holds, Unwatched, Watch

CONFIG_EXIT_CODE, MODELS_EXIT_CODE = 2, 3


async def main(chosen: ScorerSettings) -> None:
    """Load every dimension, then serve until told to stop."""
    clip_dir = Path(chosen.clip_dir) if chosen.clip_dir else Path(chosen.models_dir) / "shapes-clip"
    kit = dimensions.Kit(
        clip_dir=clip_dir,
        threads=chosen.threads,
        stock=content.stock_of(Path(chosen.stock_dir)) if chosen.stock_dir else (),
        second_vote=chosen.second_vote,
    )
    own = configured.read(chosen.config)
    remotes = stations.remotes(own, settings.secret)
    lanes = stations.lanes(kit, own, batch_max=chosen.batch_max, timeout_s=chosen.dimension_timeout_s)
    everywhere: dict[str, Station] = {**lanes, **remotes}
    measuring: list[Background] = [
        *(partial(run_together, group) for group in stations.groups(lanes)),
        *(one.run for one in remotes.values()),
    ]
    warm = WarmUp(lanes)
    transport = kafka.KafkaTransport(chosen.kafka, client_id="giclee-scorer")
    live: Table[GateSet] = Table(GateSet, transport)
    gates = Gates(live.rows, own.gate, partial(configured.trouble, measured=own.measured()))
    async with (
        database.connect(chosen.database, SCHEMA) as pool,
        blobs.connect(chosen.blobs) as bucket,
        decoding() as decoder,
        decoding() as decoder_of_evaluations,
    ):
        store = Store(pool)
        judge = Judge(decoder=decoder, lanes=everywhere, gates=gates)
        scorer = Scorer(blobs=bucket, judge=judge, store=store, watch=_watch(own, pool, chosen.unseen_hold))
        # a decoder of its own: a file that hangs it keeps no image of the line waiting
        evaluations = Evaluations(replace(judge, decoder=decoder_of_evaluations), bucket)
        await run.serve(
            run.Service(
                name="scorer",
                settings=chosen,
                stages=(scorer.stage(concurrency=chosen.concurrency),),
                background=(*measuring, warm.run, store.forget, live.follow),
                checks={
                    "models": warm.check,
                    "decoder": decoder.check,
                    "database": partial(database.ping, pool),
                    "blobs": bucket.check,
                    "gate": live.check,
                },
                internal={PATH: evaluations.door(at_once=chosen.evaluations_max)},
            ),
            transport,
        )


def _watch(own: configured.Configured, pool: database.Pool, unseen_hold: int) -> Holds:
    references = References(own.reference)
    return Watch(references, Drifts(pool), unseen_hold=unseen_hold) if references else Unwatched()


if __name__ == "__main__":
    try:
        asyncio.run(main(settings.load(ScorerSettings)))
    except InvalidInput as wrong:
        lines = "".join(f"  {one.pointer or '/'}: {one.detail}\n" for one in wrong.errors)
        sys.stderr.write(f"giclee.scorer: the operator's file has {len(wrong.errors)} error(s):\n{lines}")
        raise SystemExit(CONFIG_EXIT_CODE) from None
    except NotUsable as error:
        sys.stderr.write(f"giclee.scorer: {error}\n")
        raise SystemExit(MODELS_EXIT_CODE) from None
