"""Every metric of every service, in one literal table; telemetry.py counts, docs and tests read it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "seconds"]


class Metric(NamedTuple):
    """One row: a counter, a gauge, or a histogram of seconds; the names of its labels; one sentence."""

    kind: Kind
    labels: tuple[str, ...]
    says: str


_ROUTE = ("asset_type", "quality", "provider", "model")
"""What the router chooses by and among: few asset types, two qualities, the operator's models."""

# fmt: off
METRICS: dict[str, Metric] = {
    # every stage
    "giclee_records_handled_total": Metric("counter", ("stage", "topic"), "Records a stage handled to the end."),
    "giclee_records_emitted_total": Metric("counter", ("stage", "topic"), "Records a stage sent and the broker took."),
    "giclee_records_skipped_total": Metric("counter", ("stage", "why"), "Records a stage read and left to others."),
    "giclee_retries_total": Metric("counter", ("stage", "scope"), "Attempts that met a Transient error."),
    "giclee_dead_letters_total": Metric("counter", ("stage", "dead_class"), "Records that became dead letters."),
    "giclee_handler_seconds": Metric("seconds", ("stage",), "Time a handler took for one try at one event."),
    "giclee_in_flight": Metric("gauge", ("stage",), "Records a stage is working on."),
    "giclee_paused": Metric("gauge", ("stage",), "1 while an outage keeps a stage from working."),
    "giclee_lag": Metric("gauge", ("stage", "topic"), "Records of a topic that a stage has not committed yet."),
    # outbox
    "giclee_outbox_sent_total": Metric("counter", ("lane",), "Outbox rows the broker acknowledged."),
    "giclee_outbox_waiting": Metric("gauge", ("lane",), "Outbox rows not sent yet."),
    "giclee_outbox_oldest_seconds": Metric("gauge", ("lane",), "Age of the oldest outbox row not sent yet."),
    "giclee_outbox_relay_starts_total": Metric("counter", ("lane",), "Producers that relays started."),
    # blobs
    "giclee_blob_seconds": Metric("seconds", ("operation",), "Time the object store took for one operation."),
    "giclee_blob_failures_total": Metric("counter", ("operation", "why"), "Operations the object store did not do."),
    # gpu-worker
    "giclee_claims_total": Metric("counter", ("pool", "outcome"), "Claims a worker ended, by what they came to."),
    "giclee_claims_taken_over_total": Metric("counter", ("pool",), "Claims whose owner vanished, taken over here."),
    "giclee_images_total": Metric("counter", ("model", "padded"), "Images asked of a model, by padded batch size."),
    "giclee_generation_seconds": Metric("seconds", ("model",), "Time of one image: its share of a batch."),
    "giclee_turn_wait_seconds": Metric("seconds", ("pool",), "Time an ask waited for a device or a provider's slot."),
    "giclee_paid_again_total": Metric("counter", ("provider",), "Calls paid although an earlier one may be too."),
    "giclee_spend_refused_total": Metric("counter", ("provider",), "Calls not made because a spend cap was reached."),
    "giclee_price_differences_total": Metric("counter", ("provider", "model"), "Calls that cost other than expected."),
    "giclee_price_difference_ratio": Metric("gauge", ("provider", "model"), "Newest told cost over expected, less 1."),
    # scorer
    "giclee_verdicts_total": Metric("counter", ("verdict",), "Images the scorer judged."),
    "giclee_evaluations_total": Metric("counter", ("verdict",), "Pictures made elsewhere that the scorer judged."),
    "giclee_dimension_verdicts_total": Metric("counter", ("dimension", "verdict"), "What the gate said, by dimension."),
    "giclee_dimension_seconds": Metric("seconds", ("dimension",), "Time one dimension took for one batch of images."),
    "giclee_dimension_failures_total": Metric("counter", ("dimension", "why"), "Measurements that did not come about."),
    "giclee_decoder_restarts_total": Metric("counter", ("why",), "Decoder processes that had to be replaced."),
    "giclee_drift": Metric("gauge", ("asset_type", "model", "dimension"), "1 while drift keeps images from passing."),
    # intake, of everybody's events
    "giclee_route_candidates_total": Metric("counter", _ROUTE, "Candidates given to a provider, by route."),
    "giclee_route_fallbacks_total": Metric("counter", _ROUTE, "Of these, the ones that went on to the next."),
    "giclee_route_seconds": Metric("seconds", _ROUTE, "From being given to a provider until the image was told."),
    "giclee_route_judged_total": Metric("counter", _ROUTE, "Images that the gate judged, by who made them."),
    "giclee_route_passed_total": Metric("counter", _ROUTE, "Of these, the ones that passed."),
    "giclee_route_approved_total": Metric("counter", _ROUTE, "Images that became assets."),
    "giclee_route_usd_total": Metric("counter", _ROUTE, "US dollars paid for candidates that have settled."),
    # failpoints
    "giclee_failpoints_fired_total": Metric("counter", ("point", "mode"), "Failpoints that fired; tests arm them."),
    # tables
    "giclee_table_rows": Metric("gauge", ("topic",), "Rows of a compacted topic that this process holds."),
    # replay
    "giclee_dead_letters_put_back_total": Metric("counter", ("action",), "Dead letters sent back by replay runs."),
    "giclee_reconciler_found": Metric("gauge", ("check",), "What the reconciler's newest look found wrong."),
    # policy
    "giclee_policy_verdicts_total": Metric("counter", ("rule",), "Verdicts sent, by the rule that refused, if any."),
    "giclee_policy_copies_total": Metric("counter", (), "Requests dropped because the same one had come before."),
    # router
    "giclee_router_candidates_total": Metric("counter", ("model",), "Candidates routed, by the chain's first model."),
    "giclee_health_records_total": Metric("counter", ("kind",), "Records provider health counted or skipped."),
    # publisher
    "giclee_requests_closed_total": Metric("counter", ("outcome",), "Requests that ended, by outcome."),
    "giclee_assets_approved_total": Metric("counter", ("provider",), "Images approved, by who made them."),
    "giclee_assets_revoked_total": Metric("counter", ("reason",), "Approvals taken back, by the reason code."),
    "giclee_reviews_requested_total": Metric("counter", ("why",), "Images put to people, by the first reason's code."),
    "giclee_reviews_pending": Metric("gauge", ("kind",), "Images that wait for a person."),
    "giclee_reviews_oldest_seconds": Metric("gauge", ("kind",), "For how long the oldest of them has waited."),
    "giclee_reviews_total": Metric("counter", ("kind", "verdict"), "Verdicts of people that took effect."),
    "giclee_review_seconds": Metric("seconds", ("kind",), "How long a person looked at an image, as they say."),
    "giclee_candidates_requested_total": Metric("counter", (), "Candidates the publisher asked for or again."),
    "giclee_hedges_total": Metric("counter", (), "Candidates asked for where somebody waits for a silent provider."),
}
# fmt: on
