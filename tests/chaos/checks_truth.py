"""Checks 6, 8, 11, 12 and 13: approvals are true, steps are legal, objects are there, verdicts cover the very bytes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from tests.chaos.checks_delivery import Counts, Offence
from tests.chaos.history import (
    CLEARED,
    CLOSED,
    FAILED,
    GENERATED,
    REFUSED,
    SCORED,
    Entry,
    Fields,
    History,
    by_candidate,
    by_request,
    shown,
)

PROBE_SOON_S = 1.0


def blobs_of(body: Fields) -> list[Fields]:
    """The original and what was derived from it."""
    return [body["image"], *body.get("derivatives", ())]


def phantoms(history: History, counts: Counts) -> Iterator[Offence]:
    """6: when an approval is seen, its objects can be read and have the bytes that it names."""
    probes: dict[tuple[str, str], list[Fields]] = defaultdict(list)
    for line in history.probes:
        probes[line["asset_id"], line["key"]].append(line)
    for entry in history.approvals:
        for blob in blobs_of(entry.body):
            found = probes.get((entry.body["asset_id"], blob["key"]), [])
            counts["blobs of approvals"] += 1
            if not found and history.within("committed", entry.place):
                yield Offence(f"nobody probed {blob['key']}", (entry.show(),))
            for line in found:
                yield from _probed(line, blob, entry, counts)


def _probed(line: Fields, blob: Fields, entry: Entry, counts: Counts) -> Iterator[Offence]:
    if line["answer"] == "unreachable":
        counts["probes without an answer"] += 1
        return
    counts["probes answered later than 1 s"] += line["answered_at"] - line["seen_at"] > PROBE_SOON_S
    named = (blob["sha256"], blob["size_bytes"])
    if line["answer"] != "found" or (line["found_sha256"], line["found_size_bytes"]) != named:
        yield Offence(f"{blob['key']} is not what the approval names", (entry.show(), shown(line)))


# ---- 8 --------------------------------------------------------------------------------------------------


def legality(history: History, counts: Counts) -> Iterator[Offence]:
    """8: one verdict per request, one outcome per (candidate, hop), one score per bytes, an end that adds up."""
    yield from _same(by_request(history.on(CLEARED, REFUSED)).values(), "verdict", lambda e: _without_times(e.body))
    outcomes = defaultdict(list)
    for entry in history.on(GENERATED, FAILED):
        if not _gives_up(entry.body):
            outcomes[entry.body["candidate_id"], entry.body["hop"]].append(entry)
    yield from _same(outcomes.values(), "outcome of one candidate and hop", _image_of)
    scores = defaultdict(list)
    for entry in history.on(SCORED):
        scores[entry.body["candidate_id"], entry.body["sha256"]].append(entry)
    yield from _same(scores.values(), "verdict on the same bytes", lambda e: e.body["verdict"])
    routed = defaultdict(list)
    for entry in history.routed():
        routed[entry.body["candidate_id"], entry.body["hop"]].append(entry)
    yield from _same(routed.values(), "choice for one candidate", lambda e: [e.body["chain"], e.body["seed"]])
    counts |= {"outcomes": len(outcomes), "scores": len(scores), "choices": len(routed)}
    approved = by_request(history.approvals)
    refused = {entry.request for entry in history.on(REFUSED)}
    rows = {(row["tenant"], row["request_id"]): row for row in history.table("publisher.orders")}
    for request, entries in history.closings.items():
        counts[f"closed: {entries[0].body['outcome']}"] += 1
        yield from _ending(entries[0], approved.get(request, []), rows.get(request))
        if request in refused and entries[0].body["outcome"] not in ("refused", "cancelled"):
            yield Offence("a refused request ended otherwise", (entries[0].show(),))
    for request in approved.keys() - history.closings.keys():
        if history.quiet and approved[request][0].body.get("approval", {}).get("by") == "gate":
            yield Offence("an approval of a request without an end", (approved[request][0].show(),))


def _same(groups: Iterable[list[Entry]], what: str, told: Any) -> Iterator[Offence]:
    """An offence per group in which what is told differs."""
    for entries in groups:
        if len(entries) > 1 and any(told(entry) != told(entries[0]) for entry in entries[1:]):
            other = next(entry for entry in entries[1:] if told(entry) != told(entries[0]))
            yield Offence(f"a second {what}", (entries[0].show(), other.show()))


def _without_times(body: Fields) -> Fields:
    return {name: value for name, value in body.items() if name not in ("labels", "extensions")}


def _gives_up(body: Fields) -> bool:
    """An operator's discard may follow an image: contract rule 11."""
    return any(reason.get("code") == "discarded" for reason in body.get("reasons", ()))


def _image_of(entry: Entry) -> Any:
    image = entry.body.get("image")
    return (image["key"], image["sha256"]) if image else "failed"


def _ending(entry: Entry, approvals: list[Entry], row: Fields | None) -> Iterator[Offence]:
    body, evidence = entry.body, (entry.show(), *(one.show() for one in approvals[:3]))
    outcome, wanted, count = body["outcome"], body["wanted"], body["approved"]
    legal = {
        "approved": count == wanted,
        "partial": 0 < count < wanted,
        "cancelled": count < wanted,
        "refused": count == 0,
        "failed": count == 0,
        "expired": count == 0,
    }
    if not legal.get(outcome, False):
        yield Offence(f"{outcome} with {count} of {wanted} approved", evidence)
    named = {(one["asset_id"], one["version"]) for one in body["assets"]}
    found = {(one.body["asset_id"], one.body["version"]) for one in approvals if one.body.get("change") == "created"}
    if named != found or len(body["assets"]) != count:
        yield Offence(f"the closing names {len(named)} assets, {len(found)} were approved", evidence)
    if row is None or row["outcome"] != outcome:
        yield Offence(f"the order's row says {row and row['outcome']}, its closing {outcome}", evidence)


# ---- 11 -------------------------------------------------------------------------------------------------


def orphans(history: History, counts: Counts) -> Iterator[Offence]:
    """11: whatever a row or an event names is in the bucket as named; objects that nothing names are counted."""
    named: set[str] = set()
    for row in history.table("publisher.assets"):
        for blob in blobs_of(row["document"]) if row["status"] == "approved" else []:
            named.add(blob["key"])
            yield from _stored(history, blob, shown(row))
    damaged = {key for fault in history.faults for key in fault.get("damaged", ())}
    for entry in history.on(GENERATED):
        named.add(entry.body["image"]["key"])
        if entry.body["image"]["key"] not in damaged:
            yield from _stored(history, entry.body["image"], entry.show())
    for key in history.bucket.keys() - named:
        counts[f"objects of {key.partition('/')[0]} that no event names"] += 1
    counts["objects"] = len(history.bucket)


def _stored(history: History, blob: Fields, evidence: str) -> Iterator[Offence]:
    found = history.bucket.get(blob["key"])
    if found is None:
        yield Offence(f"{blob['key']} is not in the bucket", (evidence,))
    elif (found["sha256"], found["size_bytes"]) != (blob["sha256"], blob["size_bytes"]):
        yield Offence(f"{blob['key']} has other bytes", (evidence, shown(found)))


# ---- 12 -------------------------------------------------------------------------------------------------


def safety(history: History, counts: Counts) -> Iterator[Offence]:
    """12: every approved sha256 has policy's clearance and a passing score for exactly these bytes, all finite."""
    cleared = by_request(history.on(CLEARED))
    scored, made = by_candidate(history.on(SCORED)), by_candidate(history.on(GENERATED))
    kept = {(row["tenant"], row["request_id"]) for row in history.table("policy.verdicts")}
    for entry in history.approvals:
        body = entry.body
        sha, candidate = body["image"]["sha256"], body["candidate_id"]
        counts["approvals"] += 1
        if entry.request not in cleared or entry.request not in kept:
            yield Offence("an approval without policy's clearance", (entry.show(),))
        mine = [one for one in scored.get(candidate, []) if one.body["sha256"] == sha]
        if not any(_passes(one.body) for one in mine):
            evidence = (entry.show(), *(one.show() for one in scored.get(candidate, [])[:3]))
            yield Offence("an approval without a passing score for these bytes", evidence)
        if not any(one.body["image"]["sha256"] == sha for one in made.get(candidate, [])):
            yield Offence("an approval of bytes that nobody generated", (entry.show(),))
        if not _all_pass(body.get("scores")) or not _says_how(body):
            yield Offence("an approval that does not carry its evidence", (entry.show(),))


def _passes(body: Fields) -> bool:
    return body["verdict"] == "pass" and _all_pass(body["scores"])


def _all_pass(scores: Fields | None) -> bool:
    return bool(scores) and all(_is_pass(score) for score in (scores or {}).values())


def _is_pass(score: Fields) -> bool:
    value, threshold = score.get("value"), score.get("threshold")
    numbers = [one for one in (value, threshold) if one is not None]
    return (
        score.get("verdict") == "pass"
        and value is not None
        and all(math.isfinite(one) for one in numbers)
        and (threshold is None or value >= threshold)
        and bool(score.get("evaluator") and score.get("evaluator_version"))
    )


def _says_how(body: Fields) -> bool:
    model, approval = body.get("model", {}), body.get("approval", {})
    return bool(model.get("name") and model.get("revision") and approval.get("policy_version"))


# ---- 13 -------------------------------------------------------------------------------------------------


def tenants(history: History, counts: Counts) -> Iterator[Offence]:
    """13: keys lie under their tenant, ids stay with their tenant, and a tenant's own words appear nowhere else."""
    owners: dict[str, set[str]] = defaultdict(set)
    for tenant, rid in history.asked:
        owners[rid].add(tenant)
    for entry in history.final:
        request = entry.request
        if request is None:
            continue
        if request[1] in owners and request[0] not in owners[request[1]] and entry.topic not in ("switch.set.v1",):
            yield Offence(f"request {request[1]} appears under tenant {request[0]}", (entry.show(),))
        if entry.topic in (GENERATED, CLOSED) or entry.body.get("status") == "approved":
            yield from _under_its_tenant(entry, request[0])
        yield from _words(history, entry, request[0], counts)
    rows = {row["asset_id"]: row["tenant"] for row in history.table("publisher.assets")}
    for entry in history.approvals:
        if rows.get(entry.body["asset_id"], entry.body["tenant"]) != entry.body["tenant"]:
            yield Offence("an asset changed its tenant", (entry.show(),))


def _under_its_tenant(entry: Entry, tenant: str) -> Iterator[Offence]:
    for blob in blobs_of(entry.body) if entry.body.get("image") else []:
        parts = blob["key"].split("/")
        if len(parts) < 3 or parts[1] != tenant:
            yield Offence(f"{blob['key']} belongs to another tenant than {tenant}", (entry.show(),))


def _words(history: History, entry: Entry, tenant: str, counts: Counts) -> Iterator[Offence]:
    for owner, word in history.run.get("canaries", {}).items():
        if isinstance(entry.raw, str) and word in entry.raw:
            counts[f"records with the words of {owner}"] += 1
            if tenant != owner:
                yield Offence(f"words of {owner} in a record of {tenant}", (entry.show(),))
