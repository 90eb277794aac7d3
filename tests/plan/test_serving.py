"""What a server cannot do is known before anything is, from the declaration and the host alone."""

from __future__ import annotations

from typing import Any

import pytest

from forkfirst.errors import ConfigError
from forkfirst.plan import order, preparation, serving
from forkfirst.plan.host import Host
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.service import Declaration

HOST = Host(uid=1000, pid=4711, home="/home/somebody", directory="/home/somebody")


def declare(**fields: Any) -> Declaration:
    given: dict[str, Any] = {"target": "app:app", "serve": "uvicorn", **fields}
    listen = given.pop("listen", ("web=8000",))
    listeners = tuple(parse_listener(one) for one in listen)
    return Declaration(name="web", listeners=listeners, **given)


@pytest.mark.parametrize(
    ("fields", "said", "hint"),
    [
        ({"serve": "gunicorn"}, "'gunicorn' is not one of uvicorn, hypercorn, granian", ""),
        ({"runtime": "trio"}, "uvicorn runs on asyncio or uvloop, not on trio", "runs hypercorn"),
        ({"runtime": "none"}, "uvicorn runs on asyncio or uvloop, not on none", ""),
        ({"listen": ("udp:127.0.0.1:1",)}, "uvicorn cannot take the udp listener", "takes tcp"),
        ({"listen": ()}, "uvicorn has nothing to listen on", "--listen 8000"),
        ({"inetd": True}, "inetd passes one that is accepted", ""),
        ({"target": "", "command": ("x",)}, "a command serves by itself", ""),
        ({"serve": "", "serve_options": (("a", "b"),)}, "means nothing without serve", "say which"),
        (
            {"serve": "", "target": "app:make()"},
            "is a call, and a program is a function",
            "--serve",
        ),
    ],
)
def test_what_a_server_cannot_do_is_refused_with_what_it_can(
    fields: dict[str, Any], said: str, hint: str
) -> None:
    """At once, and not by a server's own traceback in a log."""
    with pytest.raises(ConfigError) as refused:
        order.make_plan(declare(**fields), HOST)
    assert said in str(refused.value)
    assert hint in refused.value.hint


def test_a_listener_that_systemd_passes_is_one_to_serve() -> None:
    """With socket activation the declaration may have none of its own."""
    passed = order.make_plan(declare(listen=("web=fd:3",)), HOST)
    assert passed.service.serve == "uvicorn"


def test_the_server_is_looked_for_before_anything_is_opened() -> None:
    """A server that is not installed must leave nothing to be undone."""
    plan = order.make_plan(declare(), HOST)
    kinds = [type(step) for step in plan.launcher]
    assert kinds.index(preparation.CheckServer) < kinds.index(preparation.LockPidFile)
    assert "serve it with uvicorn" in plan.worker[-1].describe()


@pytest.mark.parametrize("server", serving.SERVERS)
def test_a_server_runs_on_asyncio_unless_another_runtime_is_asked_for(server: str) -> None:
    """What it is does not depend on what happens to be installed."""
    assert serving.choose_runtime(declare(serve=server)) == "asyncio"
    assert serving.choose_runtime(declare(serve=server, runtime="uvloop")) == "uvloop"
