"""The demo's page: what was asked, what came of it, every approved picture with its scores. One file, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:2.5rem auto;max-width:72rem;padding:0 1.5rem;color:#1c1c1e;background:#fafaf8}
h1{font-weight:600;letter-spacing:-.02em;margin-bottom:.2rem} p.lead{color:#555;margin-top:0;max-width:46rem}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(30rem,1fr));gap:1rem}
section{background:#fff;border:1px solid #e6e4de;border-radius:12px;padding:1rem 1.3rem;margin:0}
h2{font-size:1.05rem;margin:0 0 .2rem} .prompt{color:#555;font-style:italic;margin:0 0 .7rem}
.outcome{display:inline-block;border-radius:99px;padding:.05rem .7rem;font-size:.85rem;background:#eee;margin-left:.5rem}
.approved{background:#d9f2de}.partial{background:#fdf1cf}.refused,.failed{background:#fbdcd8}.cancelled,.expired{background:#e8e8ee}
dl{display:flex;flex-wrap:wrap;gap:.2rem 2rem;margin:0} dt{color:#777;font-size:.8rem} dd{margin:0;font-variant-numeric:tabular-nums}
.pictures{display:flex;flex-wrap:wrap;gap:.8rem;margin-top:.8rem} figure{margin:0;width:128px}
img{width:128px;height:128px;image-rendering:pixelated;border-radius:8px;border:1px solid #e6e4de}
figcaption{font-size:.75rem;color:#555;line-height:1.35;margin-top:.3rem} ul{margin:.6rem 0 0;padding-left:1.2rem;color:#555}
"""

Shown = tuple[dict[str, Any], dict[str, Any], Sequence[Path]]


def html(rows: Sequence[Shown]) -> str:
    """The page of all rows: (table line, request as the API shows it, files of approved images)."""
    kept = sum("not kept" not in line["outcome"] for line, _, _ in rows)
    pictures = sum(len(files) for _, _, files in rows)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Giclee demo</title><style>{STYLE}</style><h1>Requests in, approved images out</h1>"
        f"<p class=lead>{len(rows)} requests, {kept} ended as promised, {pictures} pictures approved. Every picture below "
        f"was made by the line's own workers, measured by its scorer and let through by its gate.</p><main>"
        + "".join(_section(line, found, files) for line, found, files in rows)
        + "</main></html>"
    )


def _section(line: dict[str, Any], found: dict[str, Any], files: Sequence[Path]) -> str:
    state = found["state"]
    facts = {
        "candidates made": line["candidates"],
        "approved": f"{line['approved']} of {found['progress']['wanted']}",
        "cost": f"${line['cost_usd']}",
        "time": f"{line['time_s']} s",
        "promised": line["promised"],
    }
    listed = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items()
    )
    reasons = "".join(f"<li>{escape(one['message'])}</li>" for one in found.get("reasons") or ())
    pictures = "".join(_figure(path, found) for path in files)
    return (
        f"<section><h2>{escape(line['request'])}<span class='outcome {escape(state)}'>{escape(line['outcome'])}</span></h2>"
        f"<p class=prompt>{escape(_asked(found))}</p><dl>{listed}</dl>"
        + (f"<ul>{reasons}</ul>" if reasons else "")
        + (f"<div class=pictures>{pictures}</div>" if pictures else "")
        + "</section>"
    )


def _asked(found: dict[str, Any]) -> str:
    request = found.get("request") or {}
    if request.get("prompt"):
        return str(request["prompt"])
    template = request.get("template") or {}
    values = ", ".join(f"{name} {value}" for name, value in (template.get("variables") or {}).items())
    return f"template {template.get('id')}: {values}"


def _figure(path: Path, found: dict[str, Any]) -> str:
    asset: dict[str, Any] = next((one for one in found.get("assets") or () if one["asset_id"] == path.stem), {})
    candidate: dict[str, Any] = next(
        (one for one in found.get("candidates") or () if one["candidate_id"] == asset.get("candidate_id")), {}
    )
    scores = "<br>".join(
        f"{escape(name)} {score['value']:.2f}"
        for name, score in (candidate.get("scores") or {}).items()
        if score.get("value") is not None
    )
    return f"<figure><img src='{escape(path.name)}' alt='{escape(_asked(found))}'><figcaption>{scores}</figcaption></figure>"
