"""A fresh interpreter for our own purposes: the same Python, path and flags as this one.

posix_spawn(3) puts no code of ours between this process and the new program, so it does not matter
what is alive here: threads, loops, gigabytes. What other daemons do there (in subprocess's
`preexec_fn`) is done by `bootstrap` in the first moments of the new process, where it has one
thread and nothing to break. So this process is never forked, and no at-fork hook runs.
"""

from __future__ import annotations

import os
import signal
import sys

from forkfirst.plan import spawning
from forkfirst.stages import taking
from forkfirst.stages.fork_first import ENDING_SIGNALS, Forked
from forkfirst.stages.taking import NO_DESCRIPTOR
from forkfirst.unix import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forkfirst.plan.steps import Step
    from forkfirst.stages.taking import Table

REPORT_TO, RECEIVER = 3, 4
"""Where the new interpreter finds its two descriptors. It closes every other one above 2."""

PATH, PATH_BEFORE = "PYTHONPATH", "FORKFIRST_PYTHONPATH"
"""The variables by which the path of modules gets across; `bootstrap` puts them back."""

_CODE = "from forkfirst.stages.fresh.bootstrap import main; main()"


def execute(  # noqa: PLR0913 - each is a fact of its own, and all but the role are keywords
    role: str,
    *words: str,
    descriptors: Mapping[int, int],
    own_session: bool = True,
    own_group: bool = False,
    environment: Mapping[str, str] | None = None,
    path: Iterable[str] | None = None,
) -> int:
    """Start a fresh interpreter and return its pid. The caller must wait for it.

    It has the directory and the flags of this one, no signal blocked, and *descriptors* (number
    there to number here) beside 0, 1 and 2.

    Args:
        role: What it is to be: a function of `bootstrap`.
        words: Arguments of that.
        descriptors: What it shall have.
        own_session: Whether it leads a session of its own.
        own_group: Whether it leads a process group of its own.
        environment: What it shall have, if not the environment of this one.
        path: Where it looks for modules, if not in the `sys.path` of this one.

    Raises:
        ForkfirstError: The kernel refused.

    Source: posix_spawn(3).
    """
    # The empty entry that `-c` puts in front would let the directory shadow modules.
    code = _CODE if sys.flags.safe_path else f"import sys; del sys.path[:1]; {_CODE}"
    return spawn.spawn(
        (sys.executable, *list_flags(), "-c", code, role, *words),
        _make_environment(environment, path),
        descriptors,
        own_session=own_session,
        own_group=own_group,
    )


def list_flags() -> tuple[str, ...]:
    """Return the options with which an interpreter is as this one is, as far as `sys` knows.

    Not -I and -E: they would shut out the path that is passed on.
    """
    flags = sys.flags
    options: list[str] = [
        option
        for option, is_on in (
            ("-s", flags.no_user_site),
            ("-S", flags.no_site),
            ("-P", flags.safe_path),
            ("-B", sys.dont_write_bytecode),
            ("-b", flags.bytes_warning),
        )
        if is_on
    ]
    options += ["-O"] * flags.optimize
    options += [f"-W{option}" for option in sys.warnoptions]
    for name, value in sys._xoptions.items():  # noqa: SLF001 - documented, though named so
        options.append(f"-X{name}" if value is True else f"-X{name}={value}")
    return tuple(options)


def spawn_service(chosen: Iterable[Step], table: Table) -> Forked:
    """Make the process that will be the service, without a fork.

    Args:
        chosen: The launcher's first steps, from `plan.spawning`.
        table: What takes each step.

    Raises:
        ForkfirstError: It cannot be made; nothing was.
    """
    forked = Forked()
    taking.apply_steps(chosen, forked, table)
    os.close(forked.receiver)
    os.close(forked.report_to)  # ours would hide the end of file of the service's
    forked.receiver = forked.report_to = NO_DESCRIPTOR
    return forked


def _spawn(step: spawning.Spawn, forked: Forked) -> None:
    # A signal must not find the launcher between this and its handlers: `launch` unblocks them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    forked.child = execute("lead", step.name, step.module, descriptors=_ends(forked))


def _spawn_again(step: spawning.SpawnAgain, forked: Forked) -> None:
    forked.child = execute(
        "serve", step.name, step.module, descriptors=_ends(forked), own_session=False
    )


def _ends(forked: Forked) -> dict[int, int]:
    return {REPORT_TO: forked.report_to, RECEIVER: forked.receiver}


def _make_environment(
    given: Mapping[str, str] | None, path: Iterable[str] | None
) -> dict[str, str]:
    environment = dict(os.environ if given is None else given)
    if PATH in environment:
        environment[PATH_BEFORE] = environment[PATH]
    else:
        environment.pop(PATH_BEFORE, None)
    entries = [
        os.path.abspath(entry)  # the empty one is the current directory
        for entry in (sys.path if path is None else path)
        if isinstance(entry, str) and os.pathsep not in entry
    ]
    environment[PATH] = os.pathsep.join(entries)
    return environment


TABLE: Table = {spawning.Spawn: _spawn, spawning.SpawnAgain: _spawn_again}
