"""FastAPI, with a lifespan: what it opens is there before the service is ready.

cd examples/web; pip install 'forkfirst[uvicorn]' fastapi
forkfirst start fastapi_app.py:app --serve uvicorn --workers 2 --listen 8000
curl http://127.0.0.1:8000/
forkfirst reload fastapi_app
forkfirst stop fastapi_app
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GREETINGS: dict[str, str] = {}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open what requests need; `forkfirst start` waits for it, and shows what it raises."""
    GREETINGS["hello"] = "hello from FastAPI"
    yield
    GREETINGS.clear()


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def home() -> dict[str, str]:
    """Answer one request."""
    return {"greeting": GREETINGS["hello"]}
