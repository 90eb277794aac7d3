"""The first moments of a new supervisor, in the process of the old one or beside it for a proof.

Both roles take the same way, so that a proof proves something. What calls `main`, and with what
words, is of the *old* version: neither may change.
"""

from __future__ import annotations

import gc
import os
import sys

from forkfirst import __version__, errors
from forkfirst.control.caller import Caller
from forkfirst.stages import apply, taking
from forkfirst.stages.preload import preloading
from forkfirst.stages.supervise import loop, told
from forkfirst.stages.upgrade import outcome, state
from forkfirst.unix import session, stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from forkfirst.stages.supervise.loop import Supervisor


def main() -> NoReturn:
    """Be what the arguments say; leave by `_exit`, always.

    They are two parts of the path of modules, the role, and the descriptor of the state; what
    follows has been used already, or is only for who looks at the list of processes.
    """
    gc.disable()  # until all is loaded; the supervisor turns it on
    role, file = sys.argv[3], int(sys.argv[4])
    sys.argv[:] = ["forkfirst"]
    try:
        if role == "prove":
            _prove(file)
        else:
            _take_over(file)
    except errors.ForkfirstError as error:
        sys.stderr.write(f"forkfirst: {error}\n")
    except BaseException:  # noqa: BLE001 - of whatever kind, it is the answer
        import traceback  # noqa: PLC0415 - only for a bug of ours

        traceback.print_exc()
    stdio.flush_standard_streams()
    session.leave(errors.ForkfirstError.exit_status)


def _prove(file: int) -> NoReturn:
    """Say on standard output that this forkfirst could take over, if it could."""
    data = state.read(file)
    state.check_descriptors(data, without=state.list_lifelines(data))
    told.describe(_rebuild(data))
    sys.stdout.write(f"{state.PROVED}{__version__}\n")
    stdio.flush_standard_streams()
    session.leave(0)


def _take_over(file: int) -> NoReturn:
    """Be the supervisor from now on. Every signal is blocked until it listens."""
    data = state.read(file)
    os.close(file)
    for fd, *_ in data["files"]:
        os.set_inheritable(fd, False)  # noqa: FBT003 - its only argument
    state.check_descriptors(data)
    supervisor = _rebuild(data)
    loop.leave_after(supervisor, lambda: _go_on(supervisor, data))


def _rebuild(data: Mapping[str, Any]) -> Supervisor:
    """Return the supervisor that *data* describes, ready to answer: all that comes is its loop."""
    supervisor = state.rebuild(data)
    start = supervisor.start
    taking.apply_steps(start.plan.worker, start, apply.TABLE)
    supervisor.prepare()
    assert start.facts is not None  # noqa: S101 - `prepare` has made both
    assert start.server is not None  # noqa: S101 - as above
    if start.facts.log is not None:
        start.facts.log.dropped_bytes = data["start"]["dropped_bytes"]
    for one in data["callers"]:
        start.server.adopt(Caller.take_over(one))
    return supervisor


def _go_on(supervisor: Supervisor, data: Mapping[str, Any]) -> int:
    supervisor.say(f"upgraded: forkfirst {data['forkfirst']} → {__version__}")
    done = outcome.Outcome(before=data["forkfirst"], after=__version__)
    outcome.send(data["answer"], done)
    os.close(data["answer"])
    preloading.make_after_upgrade(supervisor)
    return supervisor.resume(data["signals"])
