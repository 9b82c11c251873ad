"""`python -m tests.lab`: listens on a free port of 127.0.0.1 (or `--port N`) and says where, as one line of JSON.

GET  /lab                          bill, requests seen, faults met, how often the trap was, bytes of endless answers
POST /lab/faults                   {provider, call, fault, times?, …}; times absent: until cleared
POST /lab/price                    {provider, factor}: everything costs that much more from now on
POST /lab/release | /lab/forget    {provider}: what stood still goes on | no job is known any more
POST /lab/mend                     no fault waits any more
POST /lab/clear                    everything as at the start
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping
from decimal import Decimal
from types import ModuleType

from aiohttp import web

from tests.lab import bedrock, comfyui, fal, openai_images, replicate
from tests.lab.state import Lab

PROVIDERS: Mapping[str, ModuleType] = {
    "fal": fal,
    "replicate": replicate,
    "openai": openai_images,
    "bedrock": bedrock,
    "comfyui": comfyui,
}
BODY_MAX_BYTES = 1 << 20


def control(lab: Lab) -> web.Application:
    """What tests say to the lab."""
    routes = web.RouteTableDef()

    @routes.get("")
    async def told(request: web.Request) -> web.Response:
        return web.json_response(lab.told())

    @routes.post("/faults")
    async def faults(request: web.Request) -> web.Response:
        said = await request.json()
        provider, call, name = (said.pop(field) for field in ("provider", "call", "fault"))
        lab.inject(provider, call, name, said.pop("times", None), said)
        return web.json_response({})

    @routes.post("/price")
    async def price(request: web.Request) -> web.Response:
        said = await request.json()
        lab.factor[said["provider"]] = Decimal(str(said["factor"]))
        return web.json_response({})

    @routes.post("/release")
    async def release(request: web.Request) -> web.Response:
        lab.release((await request.json())["provider"])
        return web.json_response({})

    @routes.post("/forget")
    async def forget(request: web.Request) -> web.Response:
        lab.forget((await request.json())["provider"])
        return web.json_response({})

    @routes.post("/mend")
    async def mend(request: web.Request) -> web.Response:
        lab.mend()
        return web.json_response({})

    @routes.post("/clear")
    async def clear(request: web.Request) -> web.Response:
        lab.clear()
        return web.json_response({})

    app = web.Application()
    app.add_routes(routes)
    return app


async def _listening(app: web.Application, port: int) -> int:
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return int(runner.addresses[0][1])


async def main(port: int) -> None:
    lab = Lab()

    async def trapped(request: web.Request) -> web.Response:
        lab.trapped += 1
        return web.json_response({"secret": "of the private network"})

    trap = web.Application()
    trap.router.add_route("*", "/{rest:.*}", trapped)
    trap_port = await _listening(trap, 0)
    app = web.Application(client_max_size=BODY_MAX_BYTES)
    app.add_subapp("/lab", control(lab))
    for name, module in PROVIDERS.items():
        inner = module.application(lab)
        inner["trap_url"] = f"http://127.0.0.1:{trap_port}/latest/meta-data/"
        app.add_subapp(f"/{name}", inner)
    print(json.dumps({"port": await _listening(app, port), "trap_port": trap_port}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The provider lab.")
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(main(parser.parse_args().port))
