"""Quart, served by hypercorn, which its authors wrote for it.

cd examples/web; pip install 'forkfirst[hypercorn]' quart
forkfirst start quart_app.py:app --serve hypercorn --workers 2 --listen 8000
curl http://127.0.0.1:8000/
forkfirst reload quart_app
forkfirst stop quart_app
"""

from __future__ import annotations

from quart import Quart

app = Quart(__name__)


@app.before_serving
async def prepare() -> None:
    """Open what requests need; `forkfirst start` waits for it, and shows what it raises."""
    app.config["GREETING"] = "hello from Quart\n"


@app.get("/")
async def home() -> str:
    """Answer one request."""
    return str(app.config["GREETING"])
