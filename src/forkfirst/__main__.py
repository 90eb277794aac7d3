"""`python -m forkfirst`, and the `forkfirst` command."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command that `sys.argv` names; return its exit status."""
    # A collection while modules are being loaded finds nothing and costs a start 4 of 56 ms.
    # The service turns it on again (`stages.child`); every other command is over before it matters.
    gc.disable()
    from forkfirst.cli.main import main as run  # noqa: PLC0415 - after the line above

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
