"""Starlette, with a websocket that is told when the service goes away.

cd examples/web; pip install 'forkfirst[uvicorn]' starlette websockets
forkfirst start starlette_app.py:app --serve uvicorn --workers 2 --listen 8000
curl http://127.0.0.1:8000/
forkfirst reload starlette_app
forkfirst stop starlette_app
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
    """Open what requests need; `forkfirst start` waits for it, and shows what it raises."""
    yield {"greeting": "hello from Starlette\n"}


async def home(request: Request) -> PlainTextResponse:
    """Answer one request."""
    return PlainTextResponse(request.state.greeting)


async def echo(websocket: WebSocket) -> None:
    """Send back what comes, until the client leaves or the service stops (status 1012)."""
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


app = Starlette(routes=[Route("/", home), WebSocketRoute("/echo", echo)], lifespan=lifespan)
