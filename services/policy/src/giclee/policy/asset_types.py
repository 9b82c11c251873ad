"""TABLE of the kinds of assets: what a request of each may ask for, and what one candidate may cost.

A request without `size` gets the model's own, so these bounds only judge what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from giclee.schemas.parts import Copies, ReviewTerms, Size

DOUBTS_AND_ONE_IN_FIFTY = ReviewTerms(share=0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetType:
    """One kind of asset.

    `first_wave`: candidates made at once even if fewer are wanted (0: as many as wanted), `first_wave_draft` those of
    a draft. `escalates`: a draft of which too few would pass goes on as final. `copies`: what a picture may not nearly
    be the same as: others of its `order`, earlier assets of its `tenant` as well, or `allow`. `review`: what people
    look at, by default doubts that an order needs and one in fifty of what passed. `limit_usd`: the
    most one candidate may cost over its whole chain; roughly twice the price of one image of the built-in
    models, so that a take-over, which counts the lost attempt as paid, still fits. `ratio_min`, `ratio_max`:
    width divided by height. `side_max_px`: the longer side.
    """

    wanted_max: int
    candidates_max: int
    first_wave: int = 0
    first_wave_draft: int = 0
    escalates: bool = True
    copies: Copies = "tenant"
    review: ReviewTerms = DOUBTS_AND_ONE_IN_FIFTY
    limit_usd: Decimal = Decimal("0.001")
    ratio_min: float
    ratio_max: float
    side_max_px: int

    def allows(self, size: Size | None) -> bool:
        """Whether an image of `size` can be such an asset."""
        if size is None:
            return True
        ratio = size.width / size.height
        return self.ratio_min <= ratio <= self.ratio_max and max(size.width, size.height) <= self.side_max_px


# fmt: off
TABLE: dict[str, AssetType] = {
    # anything: only what every request is bound by; the same icon may be asked for twice
    "generic": AssetType(wanted_max=100, candidates_max=400, copies="order", ratio_min=0.25, ratio_max=4.0,
                         side_max_px=4096),
    # catalogues crop to a square or nearly so
    "product-tile": AssetType(wanted_max=50, candidates_max=200, ratio_min=0.75, ratio_max=4 / 3, side_max_px=2048),
    # a scene is judged by eye: two to choose from
    "lifestyle-scene": AssetType(wanted_max=40, candidates_max=160, first_wave=2, ratio_min=0.5, ratio_max=2.0,
                                 side_max_px=2048),
    # 9:16 stories to 1.91:1 link ads
    "paid-social": AssetType(wanted_max=100, candidates_max=400, ratio_min=0.56, ratio_max=1.92, side_max_px=2048),
    # one picture that a page is built around
    "landing-visual": AssetType(wanted_max=12, candidates_max=48, first_wave=2, limit_usd=Decimal("0.0015"),
                                ratio_min=0.8, ratio_max=3.0, side_max_px=4096),
    # mail clients show wide pictures and shrink them
    "email-hero": AssetType(wanted_max=12, candidates_max=48, first_wave=2, limit_usd=Decimal("0.0015"),
                            ratio_min=1.0, ratio_max=4.0, side_max_px=2048),
}
# fmt: on
