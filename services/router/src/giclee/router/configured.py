"""What the operator's file says to the router, and prices as they are in force; for the command line.

`python -m giclee.router.configured` prints what is wrong with the tables and what is in force (`giclee config` starts
it); with `prices` it reads `{"live": [PriceSet, …]}` from stdin and lists what each model asks, with `check`
`{"row": {…}}` and says what is wrong with that row. GICLEE_CONFIG names the file, GICLEE_MODELS_DIR the demo models.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from giclee.bus.setting_names import SHARED
from giclee.router.costs import terms_of
from giclee.router.prices import Prices, Quantity, rows_of, unknown
from giclee.schemas import models
from giclee.schemas.config import told
from giclee.schemas.events import PriceSet
from giclee.schemas.models import Model
from giclee.schemas.parts import usd_text
from giclee.schemas.prices import PriceRow
from giclee.schemas.strict import InvalidInput

USAGE = 2


def offered(path: str | None) -> list[Model]:
    """Every model there is. Errors: InvalidInput."""
    folder = Path(os.environ.get("GICLEE_MODELS_DIR") or str(SHARED["GICLEE_MODELS_DIR"].default))
    return list(models.load(path, models.builtin(folder))[0].values())


def in_force(path: str | None) -> dict[str, Any]:
    """The tables that only the router reads, as `giclee config` shows them."""
    prices = told(lambda: {"prices": [row.model_dump(mode="json") for row in rows_of(path, offered(path))]})
    costs = told(lambda: {"costs": [terms_of(path).model_dump(mode="json")]})
    wrong = prices["wrong"] + [one for one in costs["wrong"] if one not in prices["wrong"]]
    return {"wrong": wrong, "rows": {**prices["rows"], **costs["rows"]}}


def listed(path: str | None, live: list[PriceSet], now: datetime) -> list[dict[str, Any]]:
    """What each model asks for one image of its own size and steps, by quality, and where that comes from."""
    known = offered(path)
    rows, now_s = rows_of(path, known), now.timestamp()
    prices = Prices(rows, {one.place: one for one in live})
    prices.look(now_s)
    found = []
    for model in known:
        for quality in model.qualities:
            price = prices.of(model, Quantity(model.width, model.height, model.steps, quality), now_s)
            row = price.row
            found.append({
                "provider": model.provider, "model": model.name, "quality": quality,
                "usd_each": None if price.usd is None else usd_text(price.usd),
                "usd": usd_text(row.usd if row else model.price_usd), "unit": row.unit if row else "image",
                "until": row.until.isoformat() if row and row.until else None,
                "source": "set" if price.set_at_s else "file" if row else price.why or "the model's own row",
            })  # fmt: skip
    return found


def main(words: list[str]) -> int:
    """The exit code; what cannot be used is said on stderr."""
    path = os.environ.get("GICLEE_CONFIG") or None
    if not words:
        json.dump(in_force(path), sys.stdout)
        return 0
    try:
        asked: Mapping[str, Any] = json.load(sys.stdin)
        if words == ["prices"]:
            live = [PriceSet.model_validate(one) for one in asked.get("live", ())]
            json.dump({"rows": listed(path, live, datetime.now(UTC))}, sys.stdout)
        elif words == ["check"]:
            row = PriceRow.model_validate(asked["row"])
            json.dump({"wrong": unknown(row, offered(path))}, sys.stdout)
        else:
            sys.stderr.write(f"{' '.join(words)}: not a verb\n")
            return USAGE
    except InvalidInput as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except ValidationError as error:
        sys.stderr.write(f"{'; '.join(_said(one) for one in error.errors())}\n")
        return USAGE
    return 0


def _said(error: Any) -> str:
    return ": ".join([*[".".join(map(str, error["loc"]))] * bool(error["loc"]), error["msg"]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
