"""The daemon of `tool.py`: keeps in memory what it is told, and answers a JSON object a line."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forkfirst import Context

LONGEST = 64 * 1024
"""Bytes of a request; whoever sends more is hung up on."""


class Memory:
    """What was remembered."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def answer(self, request: Any) -> dict[str, Any]:
        """Return the answer to one request."""
        match request:
            case {"ask": "remember", "words": [str(name), str(value)]}:
                self._values[name] = value
                return {"answer": f"{name} is {value}"}
            case {"ask": "recall", "words": [str(name)]}:
                if name in self._values:
                    return {"answer": self._values[name]}
                return {"error": f"nothing is known of {name}"}
            case {"ask": "count", "words": []}:
                return {"answer": len(self._values)}
        return {"error": "expected remember NAME VALUE, recall NAME, or count"}


async def serve(context: Context) -> None:
    """Answer until the service is asked to stop."""
    memory = Memory()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    answer = memory.answer(json.loads(line))
                except ValueError:
                    answer = {"error": "not a JSON object a line"}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):
            pass  # a line longer than LONGEST, or a client that has left
        finally:
            writer.close()

    listener = context.listener("commands")
    async with await asyncio.start_unix_server(talk, sock=listener, limit=LONGEST):
        context.ready(status="remembering")
        await context.wait_stopping()
