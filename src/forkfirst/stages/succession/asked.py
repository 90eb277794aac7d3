"""A reload is asked for: on the control socket, or by SIGHUP, which makes somebody ask there."""

from __future__ import annotations

import os
import threading

from forkfirst import errors
from forkfirst.stages import child, reload
from forkfirst.stages.succession import predecessor
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from forkfirst.stages.start import Start


def describe(start: Start) -> dict[str, Any]:
    """Return what whoever wants a reload must know: see `cli.reload`."""
    refused, hint = predecessor.why_not(start)
    return {
        "listeners": list(predecessor.addresses_of(start)),
        "mode": start.plan.mode,
        "supervised": False,
        "refused": refused,
        "hint": hint,
    }


def take_request(start: Start, request: Mapping[str, Any]) -> dict[str, Any]:
    """Begin the reload that *request* brings; see `predecessor`. Called in the control thread."""
    if start.predecessor is None:
        start.predecessor = predecessor.Predecessor(start)
    return start.predecessor.take_request(request)


def reload_by_signal(start: Start) -> bool:
    """Begin the reload that SIGHUP asks for; return whether there may be one.

    The handler that calls this interrupts the program anywhere, so a thread does the rest.
    """
    if predecessor.why_not(start)[0]:
        return False
    threading.Thread(target=_run_command, args=(start,), daemon=True).start()
    return True


def _run_command(start: Start) -> None:
    """Run `forkfirst reload`, and say if it fails: its own words are in the log already."""
    try:
        raw = children.waitpid(reload.spawn_command(start, _find_control(start)))
    except ChildProcessError:
        return  # the program waits for whatever ends
    except (OSError, errors.ForkfirstError) as error:
        _say_failed(start, f"cannot start the reload that SIGHUP asks for: {error}")
        return
    if raw:
        how = children.describe_status(raw)
        _say_failed(start, f"the reload that SIGHUP asked for {how}")


def _find_control(start: Start) -> str:
    """Return where this process answers; open a place if its manager has given it none."""
    if start.control != NO_DESCRIPTOR:
        return start.plan.places.control_socket or start.control_name
    from forkfirst.unix import sockets  # noqa: PLC0415 - only where there is no place yet

    assert start.facts is not None  # noqa: S101 - made before the program
    # A name of the kernel's, which leaves no file.
    start.control_name = f"@forkfirst-{os.getpid()}-{os.urandom(8).hex()}"
    start.control = sockets.open_abstract(start.control_name[1:])
    child.start_server(start, start.facts)
    return start.control_name


def _say_failed(start: Start, text: str) -> None:
    line = f"forkfirst: {start.plan.service.name}: {text}\n"
    os.write(2, line.encode(errors="backslashreplace"))
    manager = start.manager
    if manager is not None:  # it waits for the end of the reload
        manager.tell(lambda notifier: notifier.ready("not reloaded"))
