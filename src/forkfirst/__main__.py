"""`python -m forkfirst`, and the `forkfirst` command."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from forkfirst.stages.fork_first import Forked


def main() -> NoReturn:
    """Run the command that `sys.argv` names, and exit with its status."""
    # A collection while modules are being loaded finds nothing and costs a start 4 of 56 ms.
    # The service turns it on again (`stages.child`); every other command is over before it matters.
    gc.disable()
    try:
        status = _run(sys.argv[1:])
    except (OSError, ImportError) as error:
        # Not even our own code can be read: no descriptor or no memory is left.
        os.write(2, f"forkfirst: cannot run: {error}\n".encode(errors="replace"))
        status = 71
    # Nothing is left to be finalised but modules, which would take 6 ms.
    os._exit(status)


def _run(argv: list[str]) -> int:
    forked = _fork_first(argv) if argv[:1] == ["start"] else None
    try:
        from forkfirst.cli import main as cli  # noqa: PLC0415 - after the fork

        return cli.finish(argv[:1], cli.main(argv, forked))
    finally:
        if forked is not None:
            forked.end_unused()


def _fork_first(argv: list[str]) -> Forked | None:
    """Make the process that will be the service before anything else, if one will be needed.

    A failure is not told here: the launcher tries once more when it knows what it starts.
    """
    options = argv[: argv.index("--")] if "--" in argv else argv
    staying = {"-f", "--foreground", "-h", "--help", "--inetd", "--spawn"}
    if os.getpid() == 1 or staying.intersection(options) or sys.platform == "darwin":
        return None  # on macOS nothing is forked: see `stages.probe.forks_well`
    if "NOTIFY_SOCKET" in os.environ or "LISTEN_PID" in os.environ:
        return None  # whether it detaches at all is decided later: see `plan.first.is_supervised`
    from forkfirst import errors  # noqa: PLC0415 - only for a start
    from forkfirst.plan.first import early_module  # noqa: PLC0415 - as above
    from forkfirst.stages import fork_first  # noqa: PLC0415 - as above

    runtime = "auto"
    if "--runtime" in options[:-1]:
        runtime = options[options.index("--runtime") + 1]
    module = early_module("?" if _runs_a_target_itself(argv, options) else "", runtime)
    try:
        return fork_first.fork_service(fork_first.TABLE, module=module)
    except errors.ForkfirstError:
        return None


def _runs_a_target_itself(argv: list[str], options: list[str]) -> bool:
    """Whether the service will surely have the runtime.

    The supervisor of workers never has one, and whether a service from a file has workers is not
    known yet: to import too late costs such a start some 15 ms, too early 6 MiB for ever.
    """
    if "--" in argv or any(word.partition("=")[0] == "--workers" for word in options):
        return False
    from itertools import pairwise  # noqa: PLC0415 - built in

    return any(
        (":" in word or word.endswith(".py"))
        and not word.startswith("-")
        and (before == "--restart" or not before.startswith("--"))
        for before, word in pairwise(options)
    )


if __name__ == "__main__":
    main()
