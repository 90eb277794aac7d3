"""The control server answers whoever may ask, whatever else is sent to it."""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from forkfirst.control.client import ask
from forkfirst.control.protocol import MAX_ANSWER, MAX_REQUEST
from forkfirst.control.server import Server, open_socket
from forkfirst.errors import ForkfirstError, NotRunningError
from support.child_program import run_child
from support.control_service import (
    PATIENCE,
    connecting,
    count_descriptors,
    echo,
    make_path,
    read_answer,
    read_until_end,
    serving,
)


def test_one_connection_may_ask_several_times() -> None:
    """A monitor that asks each second needs no connection each second."""
    with serving() as path, connecting(path) as connection:
        for text in ("one", "two"):
            connection.sendall(b'{"ask":"echo","text":"%s"}\n' % text.encode())
            assert read_answer(connection) == {"ok": True, "text": text}


def test_requests_sent_together_are_answered_in_order() -> None:
    """Lines end requests; how they were cut into packets means nothing."""
    with serving() as path, connecting(path) as connection:
        whole = b"".join(b'{"ask":"echo","text":%d}\n' % number for number in range(100))
        for cut in range(0, len(whole), 7):
            connection.sendall(whole[cut : cut + 7])
        connection.shutdown(socket.SHUT_WR)
        answers = read_until_end(connection).splitlines()
    assert answers == [b'{"ok":true,"text":%d}' % number for number in range(100)]


def test_a_request_that_does_not_exist_is_told_which_do() -> None:
    """A newer client and an older service must part in peace."""
    with serving({"ping": echo}) as path, pytest.raises(ForkfirstError) as caught:
        ask(path, "fly")
    assert str(caught.value).endswith("there is no request 'fly', only echo, ping")


def _leave(_: Any) -> dict[str, Any]:
    sys.exit(3)


def _fail(_: Any) -> dict[str, Any]:
    message = "the log is gone"
    raise OSError(message)


def _refuse(_: Any) -> dict[str, Any]:
    message = "cannot rotate the log: there is none"
    raise ForkfirstError(message)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (_fail, "OSError: the log is gone"),
        (_refuse, "cannot rotate the log: there is none"),
        (_leave, "SystemExit: 3"),
        (lambda _: {"value": object()}, "cannot put a message into JSON: "),
        (lambda _: {"value": "x" * MAX_ANSWER}, "is longer than 8388608"),
        (lambda _: None, "TypeError: "),
    ],
)
def test_an_answer_that_fails_is_an_answer_and_not_the_end(answer: Any, error: str) -> None:
    """Who asks learns why, and the next one is answered."""
    with serving({"break": answer}) as path:
        with pytest.raises(ForkfirstError) as caught:
            ask(path, "break", seconds=PATIENCE)
        assert error in str(caught.value)
        assert ask(path, "echo", text="alive") == {"text": "alive"}


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"\0\0\0\n",
        b"GET / HTTP/1.1\r\n",
        b"\xff\xfe{}\n",
        b"[]\n",
        b'{"ask":["echo"]}\n',
        b"[" * 60000 + b"\n",
        b'{"ask":"echo"' + b" " * MAX_REQUEST + b"}\n",
    ],
    ids=lambda garbage: repr(garbage[:12]),
)
def test_garbage_is_answered_with_what_is_wrong(garbage: bytes) -> None:
    """Silence would leave who debugs a client with nothing."""
    with serving() as path, connecting(path) as connection:
        connection.sendall(garbage)
        assert read_answer(connection)["ok"] is False
        assert ask(path, "echo", text="alive") == {"text": "alive"}


def test_a_line_of_garbage_leaves_the_connection_usable() -> None:
    """Where a line ends, the next begins; only an endless one does not."""
    with serving() as path, connecting(path) as connection:
        connection.sendall(b"garbage\n")
        assert read_answer(connection)["ok"] is False
        connection.sendall(b'{"ask":"echo","text":1}\n')
        assert read_answer(connection) == {"ok": True, "text": 1}


def test_half_a_message_and_a_hang_up_leave_nothing() -> None:
    """A client that is killed in the middle is an everyday thing."""
    with serving() as path:
        descriptors = count_descriptors()
        for _ in range(50):
            with connecting(path) as connection:
                connection.sendall(b'{"ask":"ec')
        # One caller after the other is accepted, so all fifty are done with before this one.
        with connecting(path) as connection:
            connection.sendall(b'{"ask":"echo","text":1}\n')
            assert read_answer(connection)["ok"] is True
            # The last of the fifty may have been read, but not yet closed, in the same turn.
            connection.sendall(b'{"ask":"echo","text":1}\n')
            assert read_answer(connection)["ok"] is True
            assert count_descriptors() <= descriptors + 2  # ours, and the server's of it


def test_a_million_bytes_are_refused_after_the_first_65537() -> None:
    """What is kept of a caller is one request, whatever it sends."""
    with serving() as path, connecting(path) as connection:
        with suppress(BrokenPipeError):  # it is hung up on, as it should be
            connection.sendall(b"x" * 1_000_000)
        answer = read_until_end(connection)
        assert answer == b'{"ok":false,"error":"a request is longer than 65536 bytes"}\n'
        assert ask(path, "echo", text="alive") == {"text": "alive"}


def test_the_longest_request_is_answered() -> None:
    """A limit that refuses what it says it takes is a bug."""
    text = "x" * (MAX_REQUEST - len('{"ask":"echo","text":""}\n'))
    with serving() as path:
        assert ask(path, "echo", text=text) == {"text": text}


def test_a_slow_reader_does_not_hold_up_the_others() -> None:
    """One stopped terminal must not make a service look stuck to its monitor."""
    large = {"large": "x" * 4_000_000}
    with serving({"large": lambda _: large}) as path, connecting(path) as slow:
        slow.sendall(b'{"ask":"large"}\n')
        assert select.select([slow], [], [], PATIENCE)[0], "its answer has begun"
        assert ask(path, "echo", text="now") == {"text": "now"}
        assert len(read_answer(slow)["large"]) == 4_000_000


def test_who_does_not_read_is_not_read() -> None:
    """Otherwise a caller that only asks would fill the memory with answers."""
    asked = 0

    def answer(_: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {"large": "x" * 1_000_000}

    with serving({"large": answer}) as path, connecting(path) as connection:
        connection.sendall(b'{"ask":"large"}\n' * 100)
        assert ask(path, "echo", text="now") == {"text": "now"}
        assert asked <= 1


def test_an_idle_connection_is_closed() -> None:
    """A client that was forgotten must not be kept for ever."""
    with serving(close_idle_after=0.05) as path, connecting(path) as connection:
        assert read_until_end(connection) == b""
        assert ask(path, "echo", text="alive") == {"text": "alive"}


def test_of_too_many_connections_the_longest_idle_is_closed() -> None:
    """Idle connections are somebody's bug, and must not lock out who mends it."""
    with serving(max_connections=3) as path, ExitStack() as stack:
        first, second, third = (stack.enter_context(connecting(path)) for _ in range(3))
        for connection in (second, third, first):  # so that the second is the longest idle
            connection.sendall(b'{"ask":"echo","text":1}\n')
            assert read_answer(connection)["ok"] is True
        fourth = stack.enter_context(connecting(path))
        fourth.sendall(b'{"ask":"echo","text":1}\n')
        assert read_answer(fourth)["ok"] is True
        assert read_until_end(second) == b""
        for connection in (first, third, fourth):
            connection.sendall(b'{"ask":"echo","text":2}\n')
            assert read_answer(connection)["ok"] is True


def test_it_answers_while_the_main_thread_is_busy() -> None:
    """That is what the thread is for."""
    with serving({"busy": lambda _: {"main": threading.main_thread().is_alive()}}) as path:
        readable, writable = os.pipe()
        asked = threading.Thread(
            target=lambda: os.write(writable, repr(ask(path, "busy")).encode())
        )
        asked.start()
        assert os.read(readable, 100) == b"{'main': True}"  # the main thread awaits nothing
        asked.join()
        os.close(readable)
        os.close(writable)


def test_the_answer_to_a_request_to_stop_is_sent_before_the_end() -> None:
    """N11: an acknowledgement that races with the end is lost now and then."""
    stopping = threading.Event()

    def answer_stop(_: Any) -> dict[str, Any]:
        stopping.set()
        return {"pid": 7}

    with make_path() as path:
        uids = frozenset({os.getuid()})
        server = Server(open_socket(path), {"stop": answer_stop}, allowed_uids=uids)
        server.start()
        with connecting(path) as connection:
            connection.sendall(b'{"ask":"stop"}\n')
            assert stopping.wait(PATIENCE)
            assert server.stop(seconds=PATIENCE)
            assert read_answer(connection) == {"ok": True, "pid": 7}
        with pytest.raises(NotRunningError):
            ask(path, "stop")


def test_stopping_does_not_wait_for_an_answer_for_ever() -> None:
    """A hanging answer must not keep a service from its end."""
    begun, release = threading.Event(), threading.Event()

    def hang(_: Any) -> dict[str, Any]:
        begun.set()
        release.wait(PATIENCE)
        return {}

    with make_path() as path:
        uids = frozenset({os.getuid()})
        server = Server(open_socket(path), {"hang": hang}, allowed_uids=uids)
        server.start()
        with connecting(path) as connection:
            connection.sendall(b'{"ask":"hang"}\n')
            assert begun.wait(PATIENCE)
            assert not server.stop(seconds=0.01)
            release.set()
            assert server.stop(seconds=PATIENCE)


def test_it_can_be_driven_without_a_thread() -> None:
    """A supervisor that forks for ever has one thread, and answers in its own loop."""
    descriptors = count_descriptors()
    with make_path() as path:
        uids = frozenset({os.getuid()})
        server = Server(open_socket(path), {"echo": echo}, allowed_uids=uids)
        assert len(server.descriptors()) == 1
        assert server.seconds_until_due() is None
        with connecting(path) as connection:
            server.run_once(PATIENCE)  # accepts
            assert len(server.descriptors()) == 2
            assert 29 < (server.seconds_until_due() or 0) <= 30
            connection.sendall(b'{"ask":"echo","text":1}\n')
            server.run_once(PATIENCE)  # answers
            assert read_answer(connection) == {"ok": True, "text": 1}
        server.run_once(PATIENCE)  # notices the hang-up
        assert len(server.descriptors()) == 1
        before = time.monotonic()
        server.run_once(0)
        assert time.monotonic() - before < PATIENCE
        assert server.stop()
    assert count_descriptors() == descriptors


def test_it_starts_once() -> None:
    """Two threads in one loop would answer each other's callers."""
    with make_path() as path:
        server = Server(open_socket(path), {}, allowed_uids=frozenset())
        server.start()
        with pytest.raises(RuntimeError, match="starts once"):
            server.start()
        assert server.stop()


def test_its_small_stack_is_its_own() -> None:
    """The program's own threads may need eight megabytes."""
    usual = threading.stack_size()
    with serving():
        assert threading.stack_size() == usual


_SIGNALS = """
import json, os, signal, sys
from forkfirst.control.server import Server, open_socket

got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
server = Server(open_socket(sys.argv[1]), {}, allowed_uids=frozenset())
server.start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.kill(os.getpid(), signal.SIGUSR1)
pending = signal.SIGUSR1 in signal.sigpending()
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
server.stop()
print(json.dumps([pending, got]))
"""


def test_signals_are_left_to_the_program() -> None:
    """One delivered to this thread would not wake a main thread that sleeps in a call."""
    with make_path() as path:
        assert run_child(_SIGNALS, path) == [True, [1]]


_QUIET = """
import asyncio, json, sys, time
from forkfirst.control.server import Server, open_socket

server = Server(open_socket(sys.argv[1]), {}, allowed_uids=frozenset())
before = set(sys.modules)
server.start()
loaded = sorted(set(sys.modules) - before)
server.stop()
print("[" + ",".join(f'"{name}"' for name in loaded) + "]")
"""


def test_until_somebody_connects_nothing_is_loaded() -> None:
    """The start of every service would pay for what few of them are asked."""
    with make_path() as path:
        assert run_child(_QUIET, path) == []


_FORKS = """
import json, os, sys, warnings
from forkfirst.control.client import ask
from forkfirst.control.server import Server, open_socket

warnings.simplefilter("ignore")  # CPython 3.12 warns of any fork beside a thread
path = sys.argv[1]
server = Server(open_socket(path), {"echo": dict}, allowed_uids=frozenset({os.getuid()}))
server.start()
ask(path, "echo")
readable, writable = os.pipe()
begun, begin = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(writable)
    os.write(begin, b".")
    os.read(readable, 1)  # until the parent has ended its part
    os._exit(0)
os.read(begun, 1)
server.stop()
try:
    ask(path, "echo", seconds=20)
    outcome = "answered"
except Exception as error:
    outcome = type(error).__name__
os.write(writable, b".")
os.waitpid(pid, 0)
print(json.dumps(outcome))
"""


def test_a_child_of_the_program_does_not_keep_the_socket() -> None:
    """Those of a process pool would let callers wait for a service that has gone."""
    with make_path() as path:
        assert run_child(_FORKS, path) == "NotRunningError"


_CLOSED = """
import json, os, socket, sys, threading
from forkfirst.control.server import Server, open_socket

path = sys.argv[1]
descriptor = open_socket(path)
server = Server(descriptor, {"echo": dict}, allowed_uids=frozenset({os.getuid()}))
server.start()
thread = next(each for each in threading.enumerate() if each.name == "forkfirst-control")
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
connection.sendall(b'{"ask":"echo"}\\n')
connection.recv(100)
os.close(descriptor)
connection.sendall(b'{"ask":"echo"}\\n')  # wakes the thread
thread.join(20)
print(json.dumps([thread.is_alive(), server.stop()]))
"""


def test_a_program_that_closes_all_descriptors_makes_it_end_and_not_spin() -> None:
    """A loop over poll(2) and POLLNVAL would take a whole processor."""
    with make_path() as path:
        assert run_child(_CLOSED, path) == [False, True]


_IDLE = """
import gc, json, os, socket, sys
from forkfirst.control.client import ask
from forkfirst.control.server import Server, open_socket

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

path = sys.argv[1]
uids = frozenset({os.getuid()})
server = Server(open_socket(path), {"echo": lambda request: {}}, allowed_uids=uids)
server.start()
for _ in range(10):
    ask(path, "echo")
idle = [socket.socket(socket.AF_UNIX) for _ in range(500)]
gc.collect()
descriptors = len(os.listdir("/proc/self/fd"))
before = resident()
for connection in idle:
    connection.connect(path)
    try:
        connection.sendall(b"x" * 60_000)  # as much as is kept of anybody
    except OSError:
        pass  # closed by now for a newer one
ask(path, "echo", seconds=20)
grown = resident() - before
kept = len(os.listdir("/proc/self/fd")) - descriptors
server.stop()
print(json.dumps([grown, kept]))
"""


def test_500_idle_connections_leave_it_small() -> None:
    """Each with 60 kB of a request: 30 MB, if all were kept."""
    with make_path() as path:
        grown, kept = run_child(_IDLE, path)
    assert kept <= 64
    assert grown < 64 * 60_000 * 1.5 + 1_000_000


_EXHAUSTED = """
import json, os, resource, socket, sys
from forkfirst.control.server import Server, open_socket

path = sys.argv[1]
answers = {"read": lambda request: {"read": len(open("/proc/self/stat").read()) > 0}}
server = Server(open_socket(path), answers, allowed_uids=frozenset({os.getuid()}))
server.start()
connections = [socket.socket(socket.AF_UNIX) for _ in range(2)]
taken = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
while True:
    try:
        taken.append(os.dup(0))
    except OSError:
        break

def ask(connection):
    connection.settimeout(20)
    connection.connect(path)
    connection.sendall(b'{"ask":"read"}\\n')
    return connection.recv(1000).decode()

said = [ask(connections[0])]
connections[0].close()
os.dup(0)  # what the first caller had is the program's now; the spare ones are kept still
said.append(ask(connections[1]))
for descriptor in taken:
    os.close(descriptor)
server.stop()
print(json.dumps(said))
"""


def test_a_service_without_descriptors_can_still_be_asked() -> None:
    """One that leaks them is one to look at, and looking needs two: a caller's and a file's."""
    with make_path() as path:
        assert run_child(_EXHAUSTED, path) == ['{"ok":true,"read":true}\n'] * 2


_BACKS_OFF = """
import json, os, resource, socket, sys
from forkfirst.control import server as control

path = sys.argv[1]
server = control.Server(control.open_socket(path), {}, allowed_uids=frozenset({os.getuid()}))
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # no spare ones either
turns = []
for _ in range(2):
    server.run_once(0)
    turns.append([len(server.descriptors()), server.seconds_until_due() is not None])
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
print(json.dumps(turns))
"""


@pytest.mark.uncovered
def test_accepting_waits_a_while_when_no_descriptor_can_be_had() -> None:
    """The listener stays readable, so to try at once again is to spin."""
    with make_path() as path:
        assert run_child(_BACKS_OFF, path) == [[0, True], [0, True]]
