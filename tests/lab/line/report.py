"""The tables of a run, as Markdown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from tests.lab import fal, replicate
from tests.lab.line.books import NOTHING, Books
from tests.lab.line.drive import CLOSED, GENERATED, OUTCOMES, ROUTED, Run
from tests.lab.line.plan import PROVIDERS

OWN = "local"


def told(books: Books) -> str:
    """Everything a reader wants to know of a run."""
    run = books.run
    wrong = books.wrong()
    parts = [
        _ends(run), _table(_PROVIDER_HEAD, _providers(books)), _fallbacks(run),
        _table(_FAULT_HEAD, [*_faults(run), *_besides(books)]), _money(books),
        "\n".join(f"**wrong** {line}" for line in wrong[:40]) or "nothing is wrong",
    ]  # fmt: skip
    return "\n\n".join(parts)


_PROVIDER_HEAD = (
    "provider", "calls", "made", "other outcomes", "call p50 / p99, s", "request to closing p50 / p99, s",
    "images billed", "of them no image for us", "$ billed by the lab", "$ in the ledger", "ledger over bill, $",
)  # fmt: skip
_FAULT_HEAD = ("fault", "injected", "met", "where")


def _ends(run: Run) -> str:
    ends = run.values(CLOSED)
    outcomes = Counter(one["outcome"] for one in ends)
    took = sorted(_took(run).values())
    images = len(run.values(GENERATED))
    return (
        f"{len(run.asked)} requests, {len(ends)} closed in {run.took_s:.0f} s: {_counts(outcomes)}; {images} images "
        f"made, {sum(one['approved'] for one in ends)} approved; request to closing p50 {_share(took, 0.5):.1f} s, p99 "
        f"{_share(took, 0.99):.1f} s, longest {took[-1] if took else 0:.1f} s. {len(run.letters)} dead letters, put "
        f"back in {run.replays} runs; {run.topped_up} top-ups; prices changed {run.prices} times"
    )


def _took(run: Run) -> dict[str, float]:
    """Seconds from sending to closing, by request."""
    found: dict[str, float] = {}
    for record in run.records[CLOSED]:
        rid = record.key.decode() if record.key else ""
        if rid in run.sent_at:
            found.setdefault(rid, record.timestamp_ms / 1000 - run.sent_at[rid])
    return found


def _providers(books: Books) -> Iterable[Sequence[object]]:
    run, took = books.run, _took(books.run)
    attempts: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in run.values(OUTCOMES):
        attempts[one["provider"] if one["provider"] in PROVIDERS else OWN].append(one)
    made_by: dict[str, str] = {}
    for image in sorted(run.values(GENERATED), key=lambda one: str(one.get("index"))):
        made_by[image["request_id"]] = image["provider"] if image["provider"] in PROVIDERS else OWN
    for name in (*PROVIDERS, OWN):
        tried = attempts[name]
        outcomes = Counter(one["outcome"] for one in tried)
        seconds = sorted(float(one["seconds"]) for one in tried)
        closing = sorted(took[rid] for rid, by in made_by.items() if by == name and rid in took)
        times = (f"{_share(seconds, 0.5):.2f} / {_share(seconds, 0.99):.2f}",
                 f"{_share(closing, 0.5):.1f} / {_share(closing, 0.99):.1f}")  # fmt: skip
        row = (name, len(tried), outcomes.pop("made", 0), _counts(outcomes) or "–", *times)
        yield (*row, *(_own(run) if name == OWN else _sums(books, name)))
    yield ("hosted", *["–"] * 5, *_sums(books, None))


def _own(run: Run) -> Sequence[object]:
    paid = sum((one["paid_usd"] for one in run.claims if not one["billed"]), NOTHING)
    return ("–", "–", "–", f"{paid:f}", "–")


def _sums(books: Books, name: str | None) -> Sequence[object]:
    """Bill and ledger of a provider; None: of all of them."""
    lines = [line for line in books.bill if name in (None, line["provider"])]
    entries = [one for one in books.entries if name in (None, one.row["provider"])]
    billed = sum((Decimal(line["usd"]) for line in lines), NOTHING)
    ours = sum((one.counted for one in entries), NOTHING)
    in_vain = sum(len(one.lines) for one in entries if one.row["outcome"] != "made")
    return (len(lines), in_vain, f"{billed:f}", f"{ours:f}", f"{ours - billed:+f}")


def _fallbacks(run: Run) -> str:
    """From whom to whom candidates went on."""
    found: Counter[tuple[str, str]] = Counter()
    for topic in ROUTED:
        for one in run.values(topic):
            if one["hop"]:
                pair = [one["chain"][at]["provider"] for at in (one["hop"] - 1, one["hop"])]
                source, target = (name if name in PROVIDERS else OWN for name in pair)
                found[source, target] += 1
    names = (*PROVIDERS, OWN)
    rows = [(f"from {source}", *(found[source, target] or "–" for target in names)) for source in PROVIDERS]
    return _table(("fallbacks", *(f"to {name}" for name in names)), rows)


def _faults(run: Run) -> Iterable[Sequence[object]]:
    met: Counter[str] = Counter(run.lab["met"])
    kinds: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for (kind, provider, call, name), count in sorted(run.injected.items()):
        # a word that stands for two kinds at one call (a failed job, a refusal) is shared by what was injected
        same = sum(times for (_, *place), times in run.injected.items() if (provider, call, name) == tuple(place))
        kinds[kind].append((f"{provider} {call}", count, round(met[f"{provider} {call} {name}"] * count / same)))
    for kind, rows in sorted(kinds.items()):
        where = ", ".join(sorted({place for place, _, _ in rows}))
        yield kind, sum(row[1] for row in rows), sum(row[2] for row in rows), where


def _besides(books: Books) -> Iterable[Sequence[object]]:
    """What is no fault of one call: prices, and jobs that came to their end when nobody waited any more."""
    other = [line for line in books.bill if not _is_usual(line)]
    late = [one for one in books.entries if one.row["outcome"] == "timeout" and one.lines]
    where = ", ".join(sorted({one.row["provider"] for one in late}))
    yield "price change (met: images billed at another price)", books.run.prices, len(other), ", ".join(PROVIDERS)
    yield "success after the caller has given up (met: time-outs that were billed)", "–", len(late), where


def _is_usual(line: dict[str, Any]) -> bool:
    usd = Decimal(line["usd"])
    if line["provider"] == "openai":  # by the token: a little more for a longer prompt
        return usd < Decimal("0.009")
    return usd == {"fal": fal.PRICE_USD, "replicate": replicate.USD_PER_SECOND * replicate.PREDICT_S}[line["provider"]]


def _money(books: Books) -> str:
    rows = []
    for (provider, why), entries in books.differences().items():
        more = sum((one.counted - one.billed for one in entries), NOTHING)
        rows.append((provider, why, len(entries), f"{more:+f}"))
    again = books.paid_again()
    lines = [f"{len(again)} candidates' hops billed twice, each said in the ledger (`again`)"]
    lines += [f"{key}: {', '.join(one.row['outcome'] for one in rows)}" for key, rows in sorted(again.items())]
    more = sum((one.counted - one.billed for one in books.entries), NOTHING)
    rows.append(("all", "ledger over bill", len(books.entries), f"{more:+f}"))
    return "\n\n".join([_table(("provider", "rows of the ledger that are not their bill", "rows", "$"), rows), *lines])


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in found.most_common() if count)


def _share(ordered: Sequence[float], share: float) -> float:
    """The value below which that share lies; 0 where there is none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
