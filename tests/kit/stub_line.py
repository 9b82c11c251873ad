"""The services of the line as modules, worker and scorer without a model, and the one model that is offered then."""

from __future__ import annotations

MODULES = (
    "giclee.intake", "giclee.policy", "giclee.router", "tests.chaos.stub_worker", "tests.chaos.stub_scorer",
    "giclee.publisher",
)  # fmt: skip
MODEL = """
[[models]]
name = "stub-only"
revision = "1"
location = "stub"
provider = "stub"
qualities = ["final", "draft"]
price_usd = 0.0004
seconds = 0.1
steps = 8
width = 64
height = 64
size_max = 64
"""
"""For the file named by GICLEE_CONFIG."""
