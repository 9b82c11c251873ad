"""The line of one run: every service a process, two workers of the hosted pool, one of the local, and the lab.

Services speak to real parts that somebody else started.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from giclee.infra.local.child import Child, Launch, stop_all, tail
from giclee.infra.local.folder import checkout
from giclee.infra.local.services import interpreter
from tests.kit import lab as labs
from tests.kit.lab import KEYS, Lab
from tests.kit.stack import ports_of_our_own
from tests.kit.wait import until
from tests.lab.line.plan import Wish
from tests.lab.replicate import USD_PER_SECOND

API_KEY = "a-key-of-at-least-16"
READY_MAX_S = 240.0
CALL_DEADLINE_S = 6
"""Short, so that what never answers does not make a run of an hour."""
VERSION = "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b"
LOCAL_USD = "0.03"
OPENAI_USD, OPENAI_PER_MINUTE = "0.0083", 60
CAP_USD_A_REQUEST = 0.0005
"""One tenant's cap at fal, which is reached on the way."""

_HOSTED = """
[[models]]
name = "{name}"
revision = "{revision}"
location = "{location}"
provider = "{provider}"
pool = "hosted"
private = false
data_terms = "{terms}"
qualities = ["{quality}"]
price_usd = "{usd}"
seconds = 1.0
steps = 8
takes_guidance = false
takes_negative_prompt = false
width = 64
height = 64
size_min = 64
size_max = 64
{more}
"""
_LOCAL = """
[[models]]
name = "shapes-own"
revision = "{revision}"
location = "{location}"
provider = "{provider}"
pool = "local"
qualities = ["final"]
price_usd = "{usd}"
seconds = 1.0
steps = 8
guidance_scale = 1.0
width = 64
height = 64
size_min = 64
size_max = 64
"""
_MONEY = """
[[asset-type]]
name = "generic"
limit_usd = "0.1"

[[prices]]
provider = "fal"
model = "flux-dev"
unit = "image"
usd = "0.025"

[[spend-cap]]
provider = "fal"
tenant = "globex"
daily_usd = "{cap_usd}"

[[spend-cap]]
daily_usd = "1000"
"""


def operators_file(folder: Path, wish: Wish) -> None:
    """Three hosted models that keep what they are sent, the local one for what is confidential, prices and caps.

    The local one costs most, so that it is asked last; OpenAI's is cheaper than fal's and allows few calls a minute, so
    that both are asked. A candidate's limit holds a whole chain: by default a draft's would hold twice a draft's price.
    """
    sheet = {"input": {"prompt": "{prompt}", "width": "{width}", "height": "{height}", "seed": "{seed}"}}
    (folder / "sdxl.json").write_text(json.dumps({**sheet, "usd_per_second": str(USD_PER_SECOND)}))
    hosted = (
        ("flux-dev", "2026-11", "fal-ai/flux/dev", "fal", "kept", "final", "0.025", ""),
        ("sdxl", VERSION, "sdxl.json", "replicate", "kept", "draft", "0.00145", ""),
        ("gpt-image-low", "2026-04-21", "gpt-image-2-2026-04-21/low", "openai", "kept", "final", OPENAI_USD,
         f"takes_seed = false\nper_minute = {OPENAI_PER_MINUTE}"),
    )  # fmt: skip
    names = ("name", "revision", "location", "provider", "terms", "quality", "usd", "more")
    told = "".join(_HOSTED.format(**dict(zip(names, row, strict=True))) for row in hosted)
    own = checkout() / "models" / "shapes-final"
    revision = json.loads((own / "manifest.json").read_text())["revision"]
    local = ("diffusion", str(own), revision) if wish.real else ("stub", "stub", "1")
    told += _LOCAL.format(usd=LOCAL_USD, **dict(zip(("provider", "location", "revision"), local, strict=True)))
    told += _MONEY.format(cap_usd=f"{wish.requests * CAP_USD_A_REQUEST:.2f}")
    (folder / "giclee.toml").write_text(told)


@dataclass(frozen=True, slots=True)
class World:
    """A running line: `env` is what its clients read, `ops_url` where operators ask."""

    env: Mapping[str, str]
    ops_url: str
    lab: Lab
    folder: Path

    def logs(self) -> str:
        """All that the services have written."""
        return "\n".join(log.read_text(errors="replace") for log in sorted(self.folder.glob("*.log")))


@asynccontextmanager
async def running(wish: Wish, env: Mapping[str, str], folder: Path) -> AsyncIterator[World]:
    """Every service ready, on the parts, topics and tables of `env`, until the block ends."""
    operators_file(folder, wish)
    with ExitStack() as held:
        lab = held.enter_context(labs.running())
        ports = iter(range((base := held.enter_context(ports_of_our_own()).base), base + 40))
        shared = {
            **env,
            "GICLEE_API_KEY": API_KEY,
            "GICLEE_CONFIG": str(folder / "giclee.toml"),
            "GICLEE_MODELS_DIR": str(checkout() / "models" if wish.real else folder / "no-models"),
            "GICLEE_PUBLISHER_REVIEW_DOUBTS": "false",  # nobody sits before it
            "GICLEE_SCORER_UNSEEN_HOLD": "0",  # no model of the lab was ever calibrated
            "GICLEE_GPU_WORKER_CALL_DEADLINE_S": str(CALL_DEADLINE_S),
            "GICLEE_GPU_WORKER_CONCURRENCY": "32",
            "GICLEE_GPU_WORKER_BASE_URLS": ",".join(f"{name}={lab.url(name)}" for name in KEYS),
            "MALLOC_ARENA_MAX": "2",
            "PYTHONUNBUFFERED": "1",
            **{f"{name.upper()}_API_KEY": key for name, key in KEYS.items()},
        }
        (folder / "no-models").mkdir(exist_ok=True)
        ops_url = f"http://127.0.0.1:{next(ports)}"
        launches = _launches(shared, folder, ports, ops_url, real=wish.real)
        children = {name: Child(launch) for name, launch in launches.items()}
        held.callback(stop_all, list(children.values()))
        await asyncio.gather(*(_ready(name, child) for name, child in children.items()))
        yield World({**shared, "GICLEE_OPS_URL": ops_url}, ops_url, lab, folder)


def _launches(
    shared: Mapping[str, str], folder: Path, ports: Iterator[int], ops_url: str, *, real: bool
) -> dict[str, Launch]:
    ours, gpu = sys.executable, str(interpreter("gpu"))
    health = {name: next(ports) for name in _NAMES}
    own: dict[str, dict[str, str]] = {
        "intake": {"GICLEE_INTAKE_PORT": str(next(ports))},
        "publisher": {"GICLEE_PUBLISHER_PORT": str(next(ports))},
        "hosted-1": {"GICLEE_GPU_WORKER_POOL": "hosted"},
        "hosted-2": {"GICLEE_GPU_WORKER_POOL": "hosted"},
        "local": {"GICLEE_GPU_WORKER_POOL": "local"},
        "replay": {
            "GICLEE_REPLAY_PORT": ops_url.rpartition(":")[2],
            "GICLEE_REPLAY_PUBLISHER_URL": f"http://127.0.0.1:{health['publisher']}",
            "GICLEE_REPLAY_WORKER_URLS": f"local=http://127.0.0.1:{health['local']},"
            f"hosted=http://127.0.0.1:{health['hosted-1']}",
        },
    }
    found = {}
    for name, module in _NAMES.items():
        env = {**shared, **own.get(name, {}), "GICLEE_HEALTH_PORT": str(health[name])}
        what = module if real else _STUBS.get(name, module)
        argv = (gpu if real and name in _HEAVY else ours, "-m", what)
        found[name] = Launch(argv=argv, env=env, log=folder / f"{name}.log", cwd=checkout())
    return found


_NAMES = {
    "intake": "giclee.intake",
    "policy": "giclee.policy",
    "router": "giclee.router",
    "router.health": "giclee.router.health",
    "hosted-1": "giclee.gpu_worker",
    "hosted-2": "giclee.gpu_worker",
    "local": "giclee.gpu_worker",
    "scorer": "giclee.scorer",
    "publisher": "giclee.publisher",
    "replay": "giclee.replay",
}
"""Module of each process."""
_HEAVY = ("local", "scorer")
_STUBS = {"scorer": "tests.chaos.stub_scorer"}
"""What runs where there are no models; the local worker has a provider that needs none."""


async def _ready(name: str, child: Child) -> None:
    """Errors: AssertionError with the end of its log."""
    port = child.launch.env["GICLEE_HEALTH_PORT"]
    try:
        await until(lambda: _is_ready_or_gone(child, port), READY_MAX_S)
        assert child.exit_code() is None
    except AssertionError:
        raise AssertionError(f"{name} is not ready:\n{tail(child.launch.log, 30)}") from None


async def _is_ready_or_gone(child: Child, port: str) -> bool:
    return child.exit_code() is not None or await asyncio.to_thread(_is_ready, port)


def _is_ready(port: str) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(json.load(answer)["ready"])
    except (URLError, OSError, ValueError):
        return False
