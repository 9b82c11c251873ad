"""A clean run of seven operations, written by hand, for the checker's own tests to spoil."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Fields = dict[str, Any]
T0 = 1_795_000_000.0
PASS = {"value": 0.9, "threshold": 0.5, "verdict": "pass", "evaluator": "test", "evaluator_version": "1"}
CHAIN = [{"provider": "stub", "pool": "local", "model": {"name": "m", "revision": "1"}, "price_usd": "0.0004"}]
TABLES = ("publisher.orders", "publisher.assets", "publisher.outbox", "policy.verdicts", "replay.dead_letters")


def name_of(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))


def sha_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _header(name: str) -> str:
    return name if name.startswith("ce_") else name.replace("_", "-")


@dataclass
class Written:
    """The files of a run as lists of lines; records are written to all three logs by `save`."""

    run: Fields = field(default_factory=dict)
    operations: list[Fields] = field(default_factory=list)
    faults: list[Fields] = field(default_factory=list)
    calls: list[Fields] = field(default_factory=list)
    committed: list[Fields] = field(default_factory=list)
    uncommitted: list[Fields] = field(default_factory=list)
    final: list[Fields] = field(default_factory=list)
    ends: list[Fields] = field(default_factory=list)
    bucket: list[Fields] = field(default_factory=list)
    probes: list[Fields] = field(default_factory=list)
    tables: dict[str, list[Fields]] = field(default_factory=lambda: {name: [] for name in TABLES})
    clock: float = T0

    def send(self, topic: str, key: str | None, body: Any, **headers: Any) -> Fields:
        """A record at the end of partition 0 of a topic, as all three readers find it."""
        self.clock += 0.01
        offset = sum(one["topic"] == topic for one in self.final)
        value = body if isinstance(body, str) else json.dumps(body)
        record = {
            "topic": topic, "partition": 0, "offset": offset, "timestamp_ms": int(self.clock * 1000), "key": key,
            "headers": [[_header(name), str(text)] for name, text in headers.items()], "value": value,
        }  # fmt: skip
        for reader, kept in (("committed", self.committed), ("uncommitted", self.uncommitted), ("final", self.final)):
            kept.append({**deepcopy(record), "isolation": reader, "seen_at": self.clock + 0.005})
        return record

    def everywhere(self, change: Callable[[Fields], None], topic: str, nth: int = 0) -> None:
        """Change the nth record of a topic in all three logs, as if it had been written so. `change` gets its body."""
        for log in (self.committed, self.uncommitted, self.final):
            record = [one for one in log if one["topic"] == topic][nth]
            body = json.loads(record["value"])
            change(body)
            record["value"] = json.dumps(body)

    def ended(self) -> None:
        """Say where every reader ended."""
        topics = {one["topic"] for one in self.uncommitted}
        for reader in ("committed", "uncommitted", "final"):
            for topic in sorted(topics):
                end = 1 + max(one["offset"] for one in self.uncommitted if one["topic"] == topic)
                line = {"reader": reader, "topic": topic, "partition": 0, "begin": 0, "end": end, "position": end}
                self.ends.append({**line, "at": self.clock})

    def save(self, folder: Path) -> Path:
        """Write the run folder."""
        (folder / "tables").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(self.run))
        files = {
            "operations": self.operations, "faults": self.faults, "provider": self.calls, "ends": self.ends,
            "log.committed": self.committed, "log.uncommitted": self.uncommitted, "log.final": self.final,
            "bucket": self.bucket, "blobs": self.probes,
            **{f"tables/{name}": rows for name, rows in self.tables.items()},
        }  # fmt: skip
        for name, lines in files.items():
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder


def ask(run: Written, tenant: str, name: str, kind: str = "http", **fields: Any) -> str:
    """A request that was accepted, and its record."""
    rid = name_of(name)
    at = run.clock
    body = {"request_id": rid, "tenant": tenant, "prompt": f"a circle {run.run['canaries'][tenant]}"}
    record = run.send("image.requested.v1", rid, body)
    place = {word: record[word] for word in ("topic", "partition", "offset")}
    line = {"id": name, "kind": kind, "tenant": tenant, "request_id": rid, "invoked_at": at, "at": at + 0.01}
    run.operations.append({**line, "result": "ok", **(place if kind == "kafka" else {}), **fields})
    return rid


def clear(run: Written, tenant: str, rid: str) -> None:
    """Policy's clearance, and its row."""
    body = {"request_id": rid, "tenant": tenant, "first_wave": 1, "limit_usd": "0.0008", "request": {"wanted": 1}}
    run.send("image.policy-cleared.v1", rid, body, ce_id=name_of("cleared", rid))
    run.tables["policy.verdicts"].append({"tenant": tenant, "request_id": rid, "ruling": {}})


def blob(run: Written, key: str, body: str) -> Fields:
    """An object in the bucket and its reference."""
    run.bucket.append({"key": key, "size_bytes": len(body), "sha256": sha_of(body)})
    return {"bucket": "b", "key": key, "sha256": sha_of(body), "size_bytes": len(body)}


def make(run: Written, tenant: str, rid: str) -> Fields:
    """A candidate routed, paid, generated and scored; the body of its generation."""
    about = {"request_id": rid, "tenant": tenant, "candidate_id": name_of("c", rid), "index": 0, "hop": 0}
    candidate = str(about["candidate_id"])
    run.send("image.routed.local.v1", candidate, {**about, "chain": CHAIN, "seed": 1, "spent_usd": "0"})
    image = blob(run, f"candidates/{tenant}/{rid}/{candidate}-0-1", f"image of {rid}")
    run.calls.append({"call": name_of("call", rid), "at": run.clock, **about, "price_usd": "0.0004"})
    made = {**about, "image": image, "spent_usd": "0.0004", "price_usd": "0.0004"}
    run.send("image.generated.v1", rid, made)
    scored = {**about, "sha256": image["sha256"], "scores": {"alignment": PASS}, "verdict": "pass"}
    run.send("image.scored.v1", rid, scored)
    return made


def approve(run: Written, made: Fields) -> Fields:
    """The approval of a candidate: objects, probe, row and event; its body."""
    tenant, rid = made["tenant"], made["request_id"]
    asset = name_of("asset", made["candidate_id"])
    image = blob(run, f"assets/{tenant}/{rid}/{asset}/original", f"image of {rid}")
    body = {
        "request_id": rid, "tenant": tenant, "status": "approved", "asset_id": asset, "version": 1,
        "candidate_id": made["candidate_id"], "change": "created", "image": image, "derivatives": [],
        "scores": {"alignment": PASS}, "model": {"name": "m", "revision": "1"}, "cost_usd": "0.0004",
        "approval": {"by": "gate", "policy_version": "p-1", "gate_version": "g-1"},
    }  # fmt: skip
    number = 1 + sum(one["topic"] in ("image.approved.v1", "image.closed.v1") for one in run.final)
    marks = {"giclee_number": f"publisher.relay.0/{number}"}
    run.send("image.approved.v1", asset, body, **marks)
    seen = run.clock + 0.005
    answer = {"found_sha256": image["sha256"], "found_size_bytes": image["size_bytes"], "answer": "found"}
    about = {"asset_id": asset, "version": 1, "key": image["key"], "sha256": image["sha256"], **answer}
    run.probes.append({**about, "size_bytes": image["size_bytes"], "seen_at": seen, "answered_at": seen + 0.02})
    row = {"asset_id": asset, "tenant": tenant, "request_id": rid, "version": 1, "status": "approved"}
    run.tables["publisher.assets"].append({**row, "document": deepcopy(body)})
    return body


def close(run: Written, tenant: str, rid: str, outcome: str, *approvals: Fields, cost: str = "0") -> None:
    """The one end, and the order's row."""
    assets = [{"asset_id": one["asset_id"], "version": 1} for one in approvals]
    body = {
        "request_id": rid, "tenant": tenant, "outcome": outcome, "wanted": 1, "candidates": len(assets),
        "approved": len(assets), "assets": assets, "cost_usd": cost, "cost_final": True,
    }  # fmt: skip
    number = 1 + sum(one["topic"] in ("image.approved.v1", "image.closed.v1") for one in run.final)
    run.send("image.closed.v1", rid, body, ce_id=name_of("closed", rid), giclee_number=f"publisher.relay.0/{number}")
    run.tables["publisher.orders"].append({"tenant": tenant, "request_id": rid, "outcome": outcome})


def bury(run: Written) -> None:
    """An operation planted as invalid, its dead letter and its announcement."""
    source = run.send("image.requested.v1", "k", "{", x_own="1")
    place = {name: source[name] for name in ("topic", "partition", "offset")}
    line = {"id": "bad", "kind": "kafka", "tenant": "acme", "request_id": None, "invoked_at": run.clock}
    run.operations.append({**line, "at": run.clock, "result": "ok", "valid": False, **place})
    marks = {f"dlq_original_{name}": value for name, value in place.items()}
    own = {"dlq_id": name_of("dlq"), "dlq_stage": "policy", "dlq_class": "invalid", **marks}
    run.send("image.requested.v1.dlq", "k", "{", x_own="1", **own)
    run.send("image.stalled.v1", "0/0", {"tenant": "acme", "stage": "policy", "class": "invalid", "source": place})
    names = {f"original_{name}": value for name, value in place.items()}
    run.tables["replay.dead_letters"].append({"dlq_id": own["dlq_id"], "stage": "policy", **names})


def clean() -> Written:
    """Two tenants, two approvals, a refusal, a cancel, a refused call, a planted record and one kill."""
    run = Written()
    words = {"acme": "canary-of-acme", "zen": "canary-of-zen"}
    run.run = {"run_id": "by hand", "seed": 1, "faults_min": 1, "operations_min": 3, "canaries": words, "quiet": True}
    for tenant, name, kind in (("acme", "one", "http"), ("zen", "two", "kafka")):
        rid = ask(run, tenant, name, kind, budget_usd="0.001")
        clear(run, tenant, rid)
        close(run, tenant, rid, "approved", approve(run, make(run, tenant, rid)), cost="0.0004")
    refused = ask(run, "acme", "three")
    run.send("image.refused.v1", refused, {"request_id": refused, "tenant": "acme", "reasons": [{"code": "word"}]})
    close(run, "acme", refused, "refused")
    killed_at = run.clock
    cancelled = ask(run, "acme", "four")
    clear(run, "acme", cancelled)
    close(run, "acme", cancelled, "cancelled")
    at = {"invoked_at": run.clock, "at": run.clock}
    run.operations.append(
        {"id": "five", "kind": "cancel", "tenant": "acme", "request_id": cancelled, "result": "ok", **at}
    )
    said_no = {"id": "six", "kind": "http", "tenant": "acme", "request_id": name_of("six"), "result": "fail"}
    run.operations.append({**said_no, **at, "status": 422})
    bury(run)
    planned = {"id": "f1", "kind": "kill:policy", "target": "policy-1", "stages": ["policy"], "planned": True}
    over = {"id": "f1", "kind": "kill:policy", "happened": True, "began_at": killed_at, "ended_at": killed_at}
    run.faults = [planned, {**over, "proof": {"exit": -9}}]
    run.run |= {"began_at": T0, "ended_at": run.clock + 1}
    run.ended()
    return run
