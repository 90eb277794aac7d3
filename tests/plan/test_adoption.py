"""Which passed descriptor is which listener: a table of what was declared and what was passed."""

from __future__ import annotations

import pytest

from forkfirst.errors import ConfigError
from forkfirst.plan.adoption import plan_listeners
from forkfirst.plan.host import Host, PassedDescriptor
from forkfirst.plan.listener import parse_listener
from forkfirst.plan.service import Declaration


def _plan(
    declared: str, passed: str, *, inetd: bool = False, connected_input: bool = False
) -> list[str]:
    """Return the steps as `web=3` (adopted), `keep x=4`, `take 3`, `open web`.

    *passed* is `NAME/KIND` for each descriptor from 3 on.
    """
    words = [word.split("/") for word in passed.split()]
    host = Host(
        uid=0,
        pid=4711,
        home="/",
        directory="/",
        passed=tuple(
            PassedDescriptor(name=name, fd=fd, kind=kind)
            for fd, (name, kind) in enumerate(words, 3)
        ),
        connected_input=connected_input,
    )
    service = Declaration(
        name="hello",
        target="hello:main",
        listeners=tuple(map(parse_listener, declared.split())),
        inetd=inetd,
    )
    shown = {
        "AdoptListener": lambda step: f"{step.name}={step.fd}",
        "KeepDescriptor": lambda step: f"keep {step.name}={step.fd}",
        "TakeConnection": lambda step: f"take {step.fd}",
        "OpenListener": lambda step: f"open {step.listener.name}",
    }
    return [shown[type(step).__name__](step) for step in plan_listeners(service, host)]


@pytest.mark.parametrize(
    ("declared", "passed", "steps"),
    [
        # by its name, wherever it listens; bound where nothing was passed
        ("web=127.0.0.1:80", "web/tcp", ["web=3"]),
        ("web=127.0.0.1:80", "", ["open web"]),
        ("web=:80 admin=:81", "admin/tcp", ["open web", "admin=3"]),
        ("web=:80 admin=:81", "admin/tcp web/tcp", ["web=4", "admin=3"]),
        # several of one name
        ("web=:80", "web/tcp web/tcp", ["web=3", "web=4"]),
        ("web=:80 web=:81", "web/tcp web/tcp", ["web=3", "web=4"]),
        ("web=:80 web=:81", "web/tcp", ["web=3", "open web"]),
        # without a name of its own: by its kind, in order
        ("web=:80", "unknown/tcp", ["web=3"]),
        ("web=:80", "hello.socket/tcp", ["web=3"]),
        ("log=udp:80 web=:80", "unknown/tcp unknown/udp", ["log=4", "web=3"]),
        ("a=:80 b=:81", "hello.socket/tcp hello.socket/tcp", ["a=3", "b=4"]),
        ("web=:80", "other/tcp", ["open web", "other=3"]),
        # what must be passed
        ("systemd:web", "web/unix", ["web=3"]),
        ("x=systemd:web", "web/tcp web/tcp", ["x=3", "x=4"]),
        ("fd:web", "web/tcp", ["web=3"]),
        ("x=fd:4", "a/tcp b/tcp", ["x=4", "a=3"]),
        ("x=fd:7", "", ["x=7"]),
        # what nobody has asked for reaches the program all the same
        ("", "web/tcp state/other peer/connection", ["web=3", "keep state=4", "keep peer=5"]),
        # and one connection is not a listener
        ("", "connection/connection", ["take 3"]),
        ("", "web.socket/connection", ["take 3"]),
    ],
)
def test_each_listener_is_adopted_or_bound(declared: str, passed: str, steps: list[str]) -> None:
    """By name; by kind where there is none; bound where there is nothing."""
    declared = declared.replace("=:", "=127.0.0.1:")
    assert _plan(declared, passed) == steps


@pytest.mark.parametrize(
    ("declared", "passed", "text"),
    [
        ("web=127.0.0.1:80", "web/unix", "declared as tcp, but what was passed as web .* is unix"),
        ("web=udp:80", "web/tcp", "declared as udp, but what was passed as web .* is tcp"),
        ("systemd:web", "", r"no descriptor of that name was passed \(nothing was\)"),
        ("systemd:web", "a/tcp b/tcp b/tcp", r"no descriptor of that name was passed \(a, b was\)"),
    ],
)
def test_what_does_not_fit_is_refused(declared: str, passed: str, text: str) -> None:
    """A service on the wrong socket looks healthy, and serves nobody."""
    with pytest.raises(ConfigError, match=text):
        _plan(declared, passed)


def test_inetd_takes_the_connection_wherever_it_is() -> None:
    """On descriptor 3 with the variables, or on the standard streams without them."""
    assert _plan("", "connection/connection", inetd=True) == ["take 3"]
    assert _plan("", "", inetd=True, connected_input=True) == ["take 0"]
    with pytest.raises(ConfigError, match="inetd needs a connection, and none was passed"):
        _plan("", "", inetd=True)


KEPT = {
    "web=127.0.0.1:80": "forkfirst/web=127.0.0.1%3A80",
    "web=127.0.0.1:80?backlog=7": "forkfirst/web=127.0.0.1%3A80?backlog=7",
}


@pytest.mark.parametrize(
    ("declared", "kept", "steps"),
    [
        ("web=127.0.0.1:80", "web=127.0.0.1:80", ["back web=3"]),
        ("a=127.0.0.1:81 web=127.0.0.1:80", "web=127.0.0.1:80", ["open a", "back web=3"]),
        # declared otherwise, or not at all, or not what its name says: closed before any is bound
        ("web=127.0.0.1:80", "web=127.0.0.1:80?backlog=7", ["forget 3", "open web"]),
        ("", "web=127.0.0.1:80", ["forget 3"]),
        ("web=127.0.0.1:80", "", ["forget 3", "open web"]),
        # a socket unit has the same name by now
        ("web=127.0.0.1:80", "web=127.0.0.1:80 passed", ["forget 3", "web=4"]),
        # and nobody is served by what was kept if a descriptor is asked for
        ("web=fd:4", "web=127.0.0.1:80 passed", ["forget 3", "web=4"]),
    ],
)
def test_what_the_manager_kept_is_taken_back_or_closed(
    declared: str, kept: str, steps: list[str]
) -> None:
    """By the very words that declared it: everything else could be another socket's."""
    said, *passed = kept.split() or [""]
    name = KEPT.get(said, "forkfirst/web=127.0.0.1%3A80")
    found = [PassedDescriptor(name=name, fd=3, kind="tcp", listener=said)]
    found += [PassedDescriptor(name="web", fd=4, kind="tcp") for _ in passed]
    host = Host(uid=0, pid=4711, home="/", directory="/", passed=tuple(found))
    service = Declaration(
        name="hello", target="hello:main", listeners=tuple(map(parse_listener, declared.split()))
    )
    shown = {
        "AdoptListener": lambda step: f"{step.name}={step.fd}",
        "TakeBackListener": lambda step: f"back {step.listener.name}={step.fd}",
        "ForgetListeners": lambda step: f"forget {step.kept[0].fd}",
        "OpenListener": lambda step: f"open {step.listener.name}",
    }
    taken = plan_listeners(service, host)
    assert [shown[type(step).__name__](step) for step in taken] == steps
    assert all("127.0.0.1:8" in step.describe() or "web" in step.describe() for step in taken)
