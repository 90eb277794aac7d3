"""aiohttp's own `web.Application`, which needs no server but aiohttp: made by a function.

cd examples/web; pip install 'forkfirst[aiohttp]'
forkfirst start aiohttp_app.py:make_app --serve aiohttp --workers 2 --listen 8000
curl http://127.0.0.1:8000/
forkfirst reload aiohttp_app
forkfirst stop aiohttp_app
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GREETING = web.AppKey("GREETING", str)


async def opened(app: web.Application) -> AsyncIterator[None]:
    """Open what requests need; `forkfirst start` waits for it, and shows what it raises."""
    app[GREETING] = "hello from aiohttp\n"
    yield


async def home(request: web.Request) -> web.Response:
    """Answer one request."""
    return web.Response(text=request.app[GREETING])


def make_app() -> web.Application:
    """Return a new application."""
    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.router.add_get("/", home)
    return app
