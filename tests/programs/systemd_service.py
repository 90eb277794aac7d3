"""A service that speaks with its manager through forkfirst's modules; its argument says about what.

It runs under whatever Python the private systemd has, with nothing installed but the standard
library, and never for longer than a minute.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import threading
import time

from forkfirst.systemd import journal
from forkfirst.systemd.activation import own_pidfd_id
from forkfirst.systemd.listeners import Listeners, look_up_nature
from forkfirst.systemd.notify import Notifier
from forkfirst.systemd.notify_receiver import write_newline_ready
from forkfirst.systemd.watchdog import Feeder, read_watchdog

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

SECONDS = 60


def notifier() -> Notifier:
    """Return the one that every service here must have."""
    found = Notifier.from_environment(os.environ)
    assert found is not None
    return found


def wait_at_gate() -> None:
    """Return when the test has written a line to the pipe that the second argument names."""
    with open(sys.argv[2]) as gate:  # noqa: PTH123 - nothing that is not needed
        gate.readline()


def report_on(connection: socket.socket, **facts: object) -> None:
    """Write *facts* and what is left of the environment, and close."""
    facts["left"] = sorted(name for name in os.environ if name.startswith("LISTEN"))
    facts["pid"] = os.getpid()
    with connection:
        connection.sendall(json.dumps(facts).encode() + b"\n")


def serve_until_terminated(listeners: list[socket.socket], **facts: object) -> None:
    """Answer each connection with *facts*; end well at SIGTERM."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGTERM, lambda *_: None)
    waiting = select.poll()
    by_fd = {listener.fileno(): listener for listener in listeners}
    for fd in (reading, *by_fd):
        waiting.register(fd, select.POLLIN)
    while True:
        for fd, _ in waiting.poll(SECONDS * 1000) or [(reading, 0)]:
            if fd == reading:
                return
            report_on(by_fd[fd].accept()[0], **facts)


def serve() -> None:
    """Serve every stream that was passed, whatever its name, and say what came with what name."""
    passed = Listeners.from_environment()
    kinds = [[each.name, look_up_nature(each.fd).kind] for each in passed]
    streams = passed.take_all("web", "tcp") + passed.take_all("local", "unix")
    packet, datagram = passed.take("packet", "seqpacket"), passed.take("gram", "unixgram")
    notifier().ready(f"serving {len(streams)} listeners")
    with packet, datagram:
        serve_until_terminated(streams, kinds=sorted(kinds), untaken=len(passed.untaken()))
    notifier().stopping("until the next time")


def accept() -> None:
    """Serve the one connection that this instance was started for."""
    connection = Listeners.from_environment().connection()
    assert connection is not None
    report_on(connection, inetd=connection.fileno() > 3)


def name() -> None:
    """Print what was passed, by name and kind, and end."""
    passed = Listeners.from_environment()
    kinds = [[each.fd, each.name, look_up_nature(each.fd).kind] for each in passed]
    print(json.dumps(kinds), flush=True)  # noqa: T201 - that is the answer


def gate() -> None:
    """Become ready only when the gate is opened."""
    notifier().status("waiting at the gate")
    wait_at_gate()
    notifier().ready("through the gate")
    serve_until_terminated([])


def store() -> None:
    """Count one's own starts in a memory file that the manager keeps."""
    passed = Listeners.from_environment()
    found = passed.names
    memory = passed.take_descriptor("count") if found else os.memfd_create("count")
    starts = int(os.pread(memory, 16, 0) or b"0") + 1
    os.pwrite(memory, b"%d" % starts, 0)
    if not found:
        notifier().store([memory], "count")
    if starts == 3:
        notifier().remove_stored("count")
        notifier().barrier(SECONDS)
    notifier().ready(f"start {starts}, after {','.join(found) or 'nothing'}")
    serve_until_terminated([])


def start_slowly() -> None:
    """Take longer than the unit allows; ask for more time if the second argument says so."""
    if sys.argv[2] == "extend":
        notifier().extend_timeout(30)
    time.sleep(1.6)
    notifier().ready()
    serve_until_terminated([])


def block() -> None:
    """Turn a loop under a watchdog until the gate is opened; then let it stand still."""
    interval = read_watchdog(os.environ, os.getpid())
    assert interval is not None
    feeder, last_turn = Feeder(interval, time.monotonic()), time.monotonic()
    opened = threading.Event()

    def turn() -> None:
        nonlocal last_turn
        while not opened.wait(interval / 10):
            last_turn = time.monotonic()

    def watch() -> None:
        for _ in range(SECONDS * 20):
            action = feeder.decide(time.monotonic(), last_turn)
            if action == "feed":
                notifier().watchdog()
            elif action == "stuck":
                print("the loop is stuck", flush=True)  # noqa: T201 - to the journal
            opened.wait(interval / 10) if not opened.is_set() else time.sleep(interval / 10)

    for work in (turn, watch):
        threading.Thread(target=work, daemon=True).start()
    notifier().ready()
    wait_at_gate()
    opened.set()
    time.sleep(SECONDS)


def trigger() -> None:
    """Ask to be treated as if the watchdog had run out."""
    notifier().ready()
    notifier().watchdog_trigger()
    time.sleep(SECONDS)


def hand_over() -> None:
    """Let a child be the main process, and end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        serve_until_terminated([])
        return
    pidfd = os.pidfd_open(child)
    notifier().mainpid(child, pidfd=pidfd if sys.argv[2] == "pidfd" else None)
    notifier().ready("handed over")
    notifier().barrier(SECONDS)


def help_out() -> None:
    """Have a short-lived helper say the status, with a barrier so that it is known as ours."""
    child = os.fork()
    if child == 0:
        notifier().status("said by the helper")
        notifier().barrier(SECONDS)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    notifier().ready()
    serve_until_terminated([])


def reload() -> None:
    """Count SIGHUPs, and show the count between RELOADING and READY."""
    reloads = 0

    def hang_up(*_: object) -> None:
        nonlocal reloads
        notifier().reloading()
        reloads += 1
        notifier().ready(f"reloads: {reloads}")

    signal.signal(signal.SIGHUP, hang_up)
    notifier().ready("reloads: 0")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for _ in range(SECONDS):
        time.sleep(1)


def fail() -> None:
    """Say why before ending."""
    notifier().notify_access("all")
    notifier().errno(2)
    notifier().bus_error("org.example.Failed")
    notifier().send("X_FORKFIRST_UNKNOWN=1")
    notifier().barrier(SECONDS)
    sys.exit(3)


def log() -> None:
    """Write to the journal in its own language, small and large."""
    assert journal.is_journal(2, os.environ)
    reading, writing = os.pipe()
    assert not journal.is_journal(reading, os.environ)
    os.close(reading)
    os.close(writing)
    journal.send("two\nlines", "warning", REQUEST=17)
    journal.send("x" * 400_000, "debug", LARGE="yes")
    logger = logging.getLogger("app")
    logger.addHandler(journal.make_handler("forkfirst-test"))
    try:
        1 / 0  # noqa: B018 - for its traceback
    except ZeroDivisionError:
        logger.exception("lost", extra={"REQUEST": 18})


def tell_who() -> None:
    """Print the number of this process."""
    print(json.dumps(own_pidfd_id()), flush=True)  # noqa: T201 - that is the answer


def line_feed() -> None:
    """Say "ready" as s6 has it."""
    write_newline_ready(int(sys.argv[2]))
    serve_until_terminated([])


def ready_now() -> None:
    """Be ready, and wait to be ended."""
    notifier().ready("at once")
    serve_until_terminated([])


if __name__ == "__main__":
    globals()[sys.argv[1]]()
