"""The application that every server serves: as little as HTTP lets an answer be."""

from __future__ import annotations

from typing import Any

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"6")],
}
BODY = {"type": "http.response.body", "body": b"hello\n"}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request; nothing has to be opened before."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await send(START)
    await send(BODY)
