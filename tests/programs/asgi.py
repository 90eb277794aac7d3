"""Applications without a framework: what each server is asked to serve."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

WORD = b"first\n"


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    scope["state"]["word"] = WORD
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan over", flush=True)  # noqa: T201 - a test reads it in the log
    await send({"type": "lifespan.shutdown.complete"})


async def websocket(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    message = await receive()
    print("websocket over", message["type"], message.get("code"), flush=True)  # noqa: T201 - a test reads it in the log


async def http(scope: Any, _: Any, send: Any) -> None:
    if scope["path"] == "/pid":
        body = f"{os.getpid()}\n".encode()
    elif scope["path"] == "/slow":
        await sleep(1.5)
        body = b"slow\n"
    elif scope["path"] == "/endless":
        await sleep(3600)
    else:
        body = scope["state"]["word"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def sleep(seconds: float) -> None:
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


async def app(scope: Any, receive: Any, send: Any) -> None:
    serve = {"lifespan": lifespan, "websocket": websocket, "http": http}[scope["type"]]
    await serve(scope, receive, send)


def make_app() -> Any:
    return app


async def without_lifespan(scope: Any, _: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await http({**scope, "state": {"word": WORD}}, None, send)


async def raises_at_start(_: Any, receive: Any, __: Any) -> None:
    await receive()
    text = "no database today"
    raise RuntimeError(text)


async def says_failed(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database today"})


async def raises_at_end(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await http({**scope, "state": {"word": WORD}}, receive, send)
        return
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    text = "cannot flush"
    raise RuntimeError(text)


def wsgi(_: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", str(len(WORD)))])
    return [WORD]
