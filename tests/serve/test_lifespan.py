"""The lifespan protocol between any server and any application."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forkfirst.runtime.serve.lifespan import Lifespan

START = {"type": "lifespan.startup"}
WHY = "why"
STOP = {"type": "lifespan.shutdown"}


def live(application: Any, mode: str = "auto") -> tuple[list[str], Lifespan]:
    """Run a whole lifespan; return what the server was told."""
    said: list[str] = []
    asked = iter((START, STOP))

    async def receive() -> dict[str, str]:
        return next(asked)

    async def send(message: Any) -> None:
        said.append(message["type"].removeprefix("lifespan."))

    lifespan = Lifespan(application, mode)
    asyncio.run(lifespan({"type": "lifespan"}, receive, send))
    return said, lifespan


async def works(_: Any, receive: Any, send: Any) -> None:
    for kind in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{kind}"
        await send({"type": f"lifespan.{kind}.complete"})


async def refuses(scope: Any, _: Any, __: Any) -> None:
    raise ValueError(scope["type"])


async def takes_it_for_a_request(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def returns(_: Any, __: Any, ___: Any) -> None:
    """Do nothing, as a function does that answers only what it knows."""


async def raises(_: Any, receive: Any, __: Any) -> None:
    await receive()
    raise ValueError(WHY)


async def says_so(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "why"})


async def exits(_: Any, receive: Any, __: Any) -> None:
    await receive()
    raise SystemExit(3)


async def raises_later(_: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise ValueError(WHY)


@pytest.mark.parametrize("application", [works, refuses, takes_it_for_a_request, returns])
def test_an_application_with_or_without_a_lifespan_starts_and_stops(application: Any) -> None:
    """The protocol lets one refuse it, and servers disagree on what that looks like."""
    said, lifespan = live(application)
    assert said == ["startup.complete", "shutdown.complete"]
    lifespan.check()


@pytest.mark.parametrize(
    ("application", "kind"), [(raises, ValueError), (says_so, Exception), (exits, SystemExit)]
)
def test_one_that_took_the_startup_and_failed_has_failed(application: Any, kind: type) -> None:
    """To go on without is what some servers do, and then requests fail one by one."""
    said, lifespan = live(application)
    assert said == ["startup.failed"]
    with pytest.raises(kind) as raised:
        lifespan.check()
    assert raised.value.args[0] == 3 or "why" in str(raised.value)


def test_a_failure_at_the_end_is_one_as_well() -> None:
    """What was not written is lost, whatever the exit status of a server says."""
    said, lifespan = live(raises_later)
    assert said == ["startup.complete", "shutdown.failed"]
    with pytest.raises(ValueError, match="why"):
        lifespan.check()


def test_on_wants_one_and_off_asks_for_none() -> None:
    """The same two words for every server."""
    assert live(refuses, "on")[0] == ["startup.failed"]
    said, lifespan = live(raises, "off")
    assert said == ["startup.complete", "shutdown.complete"]
    lifespan.check()
