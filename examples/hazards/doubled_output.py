"""Output that is written twice: both processes have the buffer, and both flush it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from scene import ask_guard, say, watch


def main() -> int:
    """Write one line to a file and fork before it is flushed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        with path.open("w") as log:
            log.write("payment of 100 accepted\n")
            ask_guard("doubled-output")
            child = os.fork()
            if child == 0:
                log.flush()  # as sys.exit() would
                os._exit(0)
            watch(child)
        text = path.read_text()
    say(f"one line was written; the file has {text.count('accepted')}:\n{text}")
    say("this cannot be seen before a fork; forkfirst flushes the standard streams, and leaves its")
    say("launcher by os._exit(); a file of the program's own is opened in main()")
    return 1 if text.count("accepted") == 1 else 0


if __name__ == "__main__":
    sys.exit(main())
