"""An `aiohttp.web.Application`, as aiohttp's own server is asked to serve it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import web


async def life(_: web.Application) -> Any:
    yield
    print("lifespan over", flush=True)  # noqa: T201 - a test reads it in the log


async def home(request: web.Request) -> web.Response:
    if request.path == "/slow":
        await asyncio.sleep(1.5)
        return web.Response(text="slow\n")
    if request.path == "/pid":
        return web.Response(text=f"{os.getpid()}\n")
    return web.Response(text="first\n")


async def websocket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for _ in response:
        pass
    print("websocket over", response.close_code, flush=True)  # noqa: T201 - as above
    return response


async def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(life)
    app.router.add_get("/websocket", websocket)
    app.router.add_get("/{path:.*}", home)
    return app


async def make_broken_app() -> web.Application:
    app = web.Application()

    async def fail(_: web.Application) -> None:
        text = "no database today"
        raise RuntimeError(text)

    app.on_startup.append(fail)
    return app
