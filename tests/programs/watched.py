"""A server that is edited while it is asked: it answers each line with its version and its pid.

It takes one connection after another from descriptor 3, and loses none: asked to stop, it ends when
it has answered. Its first line is what a test changes. With $HOLD in the environment it never ends
while somebody is connected, and with $STATUS it ends with that.
"""

VERSION = "one"

import os  # noqa: E402 - below what is edited
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402


def _say_ready() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect("\0" + os.environ["NOTIFY_SOCKET"].removeprefix("@"))
        manager.send(b"READY=1")


def _answer(connection: socket.socket) -> None:
    with connection, connection.makefile("rw") as lines:
        for _ in lines:
            lines.write(f"{VERSION} {os.getpid()}\n")
            lines.flush()
            if STOPPED and "HOLD" not in os.environ:
                return


STOPPED: list[int] = []
wake, waker = os.pipe()
for end in (wake, waker):
    os.set_blocking(end, False)
signal.set_wakeup_fd(waker)
signal.signal(signal.SIGTERM, lambda number, _: STOPPED.append(number))
listener = socket.socket(fileno=3)
listener.setblocking(False)  # noqa: FBT003 - the call has no name for it
if "SILENT" not in os.environ:
    _say_ready()
while not STOPPED:
    if listener.fileno() in select.select([listener.fileno(), wake], [], [])[0]:
        try:
            taken, _ = listener.accept()
        except BlockingIOError:
            continue  # the other generation was faster
        taken.setblocking(True)  # noqa: FBT003 - as above
        _answer(taken)
sys.exit(int(os.environ.get("STATUS", "0")))
