"""What the router makes of provider health. Everything here works when the numbers are old, missing or of the future.

A provider that fails in a row is set aside for a while that doubles with every failure, and then tried again with
real work, one wave at a time. One that wants money or a key is set aside until its day is over or somebody acts.
Being set aside moves a model to the end of a chain; only switches and what a model cannot do take it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from giclee.router.costs import Belief, Counts, belief
from giclee.schemas.events import ProviderHealth, SwitchSet
from giclee.schemas.health import ModelHealth

STALE = timedelta(seconds=60)
"""Numbers of a window older than the window say nothing about now."""
FUTURE = timedelta(seconds=5)
"""Clocks differ by less; a record from further ahead is ignored."""
SCORED_PRIOR, PASSED_PRIOR = 10, 6
"""Before an image is judged, and to steady the first few: as if 6 of 10 had passed."""
STREAK_MIN = 3
"""Failures in a row that open a breaker; two happen to a good provider once in a few thousand calls."""
COOL_S, COOL_MAX_S = 15.0, 300.0
"""How long an open breaker rests after its third failure; twice as long after each further one."""
LIMITED_COOL_S, LIMITED_COOL_MAX_S = 5.0, 60.0
"""The same after an answer that we ask too often."""
TRIAL_EVERY_S = 10.0
"""Between two trials of one half-open breaker by this process: as long as health takes to tell of the first, twice."""
ODDS_PRIOR_FAILED, ODDS_PRIOR_TRIED = 0.05, 5.0
"""A provider that nobody has tried fails one call in a hundred."""
CLOSED_S = 600.0
"""A breaker that rested, and of which nobody told anything for so long since, is closed: nobody is there to tell, or no
work came by that may try. The next failure opens it again, and for longer."""
SAMPLES_MIN = 20
"""Durations without which a p95 is a guess; the table's own seconds count until then."""
BELIEVED_S = 60.0
"""How long a belief is kept as worked out; half-lives are hours."""


def fresh(rows: Mapping[str, ProviderHealth], now: datetime) -> dict[str, ProviderHealth]:
    """The rows that speak about now, by provider: neither old nor of the future."""
    return {row.provider: row for row in rows.values() if -FUTURE <= now - row.at <= STALE}


def acceptance(row: ProviderHealth | None) -> float:
    """The share of a provider's images that pass, between 0 and 1, pulled towards 0.6 while few were judged."""
    scored, passed = (row.scored, row.passed) if row else (0, 0)
    return (min(passed, scored) + PASSED_PRIOR) / (scored + SCORED_PRIOR)


@dataclass(slots=True)
class Standing:
    """One model at its provider as a choice sees it; times in seconds since 1970, 0 for never.

    `odds` are failed attempts for each made one. `rests_until_s`: its breaker is open; `trial`: open until now, and
    the next wave is its trial. `held`: why it cannot be used until `held_until_s`.
    """

    odds: float = ODDS_PRIOR_FAILED / ODDS_PRIOR_TRIED
    p50_s: float | None = None
    p95_s: float | None = None
    queue_s: float = 0.0
    told_s: float = 0.0
    rests_until_s: float = 0.0
    trial: bool = False
    held: str = ""
    held_since_s: float = 0.0
    held_until_s: float = 0.0
    paid_ratio: float = 1.0
    paid_since_s: float = 0.0
    kinds: Mapping[str, Counts] = field(default_factory=dict)
    worked_out_s: float = 0.0
    _beliefs: dict[str, Belief] = field(default_factory=dict)

    def wait_s(self, now_s: float) -> float:
        """How long work waits there for its turn; nothing when nobody told of it lately."""
        return self.queue_s if now_s - self.told_s <= STALE.total_seconds() else 0.0

    def on_trial(self, now_s: float) -> bool:
        """Whether its breaker is half open."""
        return self.trial and now_s - self.rests_until_s <= CLOSED_S

    def belief(self, asset_type: str, now_s: float) -> Belief:
        """The share of its images of that asset type that pass."""
        if now_s - self.worked_out_s > BELIEVED_S:
            self._beliefs.clear()
            self.worked_out_s = now_s
        found = self._beliefs.get(asset_type)
        if found is None:
            found = self._beliefs[asset_type] = belief(self.kinds, asset_type, now_s)
        return found


UNKNOWN = Standing()
"""What is thought of a model that nobody has told about."""


def standing_of(told: ModelHealth, told_s: float = 0.0) -> Standing:
    """As a choice sees what health told of one model at `told_s`."""
    kinds = {kind: Counts(one.passed, one.scored, one.at.timestamp()) for kind, one in told.accepted.items()}
    rests, limited = _rest(told.streak, STREAK_MIN, COOL_S, COOL_MAX_S), 0.0
    if told.limited:
        limited = _rest(told.limited, 1, LIMITED_COOL_S, LIMITED_COOL_MAX_S)
    enough = told.samples >= SAMPLES_MIN
    failed, tried = told.failed + ODDS_PRIOR_FAILED, told.tried + ODDS_PRIOR_TRIED
    return Standing(
        # a trial is made as if nothing had been: the failures before are what the breaker opened for
        odds=UNKNOWN.odds if rests else failed / max(tried - failed, 0.05 * tried),
        p50_s=told.p50_s if enough else None,
        p95_s=told.p95_s if enough else None,
        queue_s=told.queue_s or 0.0,
        told_s=told_s,
        rests_until_s=max(_s(told.failed_at) + rests if rests else 0.0, _s(told.limited_at) + limited),
        trial=bool(rests),
        held=told.held or "",
        held_since_s=_s(told.held_since),
        held_until_s=_s(told.held_until) or float("inf"),
        paid_ratio=told.paid_ratio or 1.0,
        paid_since_s=_s(told.paid_since),
        kinds=kinds,
    )


def _rest(times: int, first: int, cool_s: float, most_s: float) -> float:
    return float(min(most_s, cool_s * 2.0 ** min(times - first, 16))) if times >= first else 0.0


def _s(at: datetime | None) -> float:
    return 0.0 if at is None else at.timestamp()


class Advice:
    """The standings of all models, from rows that somebody else follows; each is worked out once a row.

    `trials` are the waves that this process gave to half-open providers: one each, then wait for its end.
    """

    def __init__(self, rows: Mapping[str, ProviderHealth], switches: Mapping[str, SwitchSet] | None = None) -> None:
        self._rows = rows
        self._switches: Mapping[str, SwitchSet] = {} if switches is None else switches
        self._known: dict[tuple[str, str], tuple[ProviderHealth, Standing]] = {}
        self._tried: dict[tuple[str, str], float] = {}

    def standing(self, provider: str, model: str, now_s: float) -> Standing:
        """What is thought of a model now; `UNKNOWN` where nobody told, or told from the future."""
        row = self._rows.get(provider)
        if row is None or row.at.timestamp() - now_s > FUTURE.total_seconds():
            return UNKNOWN
        known = self._known.get((provider, model))
        if known is not None and known[0] is row:
            return known[1]
        told = row.models.get(model)
        found = UNKNOWN if told is None else standing_of(told, row.at.timestamp())
        self._known[provider, model] = (row, found)
        return found

    def aside(self, provider: str, model: str, standing: Standing, now_s: float) -> str:
        """Why a model of that standing is set aside now; empty when it is not."""
        if standing.held and now_s < standing.held_until_s and not self._released(provider, standing.held_since_s):
            return f"refused for {standing.held}; `giclee providers release {provider}` when that is mended"
        if now_s < standing.rests_until_s:
            return f"rests {standing.rests_until_s - now_s:.0f} s after failures"
        if standing.on_trial(now_s) and now_s - self._tried.get((provider, model), 0.0) < TRIAL_EVERY_S:
            return "is on trial after failures"
        return ""

    def chosen(self, provider: str, model: str, now_s: float) -> None:
        """A wave goes to this model first: where its breaker is half open, that is its trial."""
        if self.standing(provider, model, now_s).on_trial(now_s):
            self._tried[provider, model] = now_s

    def _released(self, provider: str, since_s: float) -> bool:
        """Whether somebody cleared the provider's switch after it was refused."""
        switch = self._switches.get(f"provider:{provider}")
        return switch is not None and switch.mode == "clear" and switch.set_at.timestamp() > since_s
