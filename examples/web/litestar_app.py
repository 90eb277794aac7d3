"""Litestar, served by granian.

cd examples/web; pip install 'forkfirst[granian]' litestar
forkfirst start litestar_app.py:app --serve granian --workers 2 --listen 8000
curl http://127.0.0.1:8000/
forkfirst reload litestar_app
forkfirst stop litestar_app
"""

from __future__ import annotations

from litestar import Litestar, get


@get("/")
async def home() -> str:
    """Answer one request."""
    return "hello from Litestar\n"


app = Litestar([home])
