"""Where a service listens: the path, its mode, and what may be replaced."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest

from forkfirst.control.client import ask
from forkfirst.control.server import Server, open_socket, remove_socket
from forkfirst.errors import CannotCreateError
from support.child_program import run_child
from support.control_service import count_descriptors, echo, make_path

_BIND = """
import json, os, socket, sys
from forkfirst.control.server import open_socket

seen = []
def watch(event, arguments):
    if event == "socket.bind":
        umask = os.umask(0)
        os.umask(umask)
        seen.append(umask)
    elif event in ("os.chmod", "os.chown"):
        seen.append(event)

os.umask(0)
sys.addaudithook(watch)
open_socket(sys.argv[1])
umask = os.umask(0)
print(json.dumps([seen, umask, os.stat(sys.argv[1]).st_mode & 0o7777]))
"""


def test_the_socket_is_private_from_its_first_moment() -> None:
    """N15: with a chmod afterwards, who is quick could connect before it, and stay connected."""
    with make_path() as path:
        seen, umask_afterwards, mode = run_child(_BIND, path)
    assert mode == 0o600
    assert seen == [0o177], "bound under that umask, and its mode never changed"
    assert umask_afterwards == 0, "the umask is the program's"


def test_a_stale_socket_is_replaced() -> None:
    """After kill -9 the path stays; the lock, not the path, says who runs."""
    with make_path() as path:
        os.close(open_socket(path))
        assert Path(path).is_socket()
        os.close(open_socket(path))


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_not_a_socket_is_left_alone(kind: str, tmp_path: Path) -> None:
    """A wrong path in a declaration must not cost anybody a file."""
    descriptors = count_descriptors()
    path = tmp_path / "web.sock"
    target = tmp_path / "precious"
    target.write_text("precious")
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
    with pytest.raises(CannotCreateError, match="something that is not a socket is there"):
        open_socket(str(path))
    assert os.path.lexists(path)
    assert target.read_text() == "precious"
    assert count_descriptors() == descriptors


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The text alone must tell what to mend."""
    path = str(tmp_path / "nowhere" / "web.sock")
    with pytest.raises(CannotCreateError) as caught:
        open_socket(path)
    assert str(caught.value) == f"cannot listen at {path}: no such file or directory"
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_a_path_of_any_depth_is_served_and_asked() -> None:
    """A path of 250 bytes does not fit into an address, and must work nevertheless."""
    with make_path("d" * 100 + "/" + "e" * 100 + "/web.sock") as path:
        Path(path).parent.mkdir(parents=True)
        descriptors = count_descriptors()
        server = Server(open_socket(path), {"echo": echo}, allowed_uids=frozenset({os.getuid()}))
        server.start()
        assert ask(path, "echo", text="far down") == {"text": "far down"}
        assert server.stop()
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        remove_socket(path)
        assert not os.path.lexists(path)
        assert count_descriptors() == descriptors


def test_the_descriptor_does_not_leak_into_programs(tmp_path: Path) -> None:
    """A child of the service that has it would keep callers waiting for nobody."""
    descriptor = open_socket(str(tmp_path / "web.sock"))
    assert not os.get_inheritable(descriptor)
    with socket.socket(fileno=descriptor) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_removing_takes_sockets_only(tmp_path: Path) -> None:
    """At the end of a service as at its start: nobody else's file."""
    file = tmp_path / "file"
    file.write_text("precious")
    remove_socket(str(file))
    remove_socket(str(tmp_path / "missing"))
    remove_socket(str(file / "below-a-file"))
    assert file.read_text() == "precious"


@pytest.mark.skipif(sys.platform != "linux", reason="O_PATH is Linux's")
def test_a_name_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    """Better no service than one at a path cut short, which is another's."""
    with pytest.raises(CannotCreateError, match="longer than a socket's address may be"):
        open_socket(str(tmp_path / ("n" * 200)))
    assert list(tmp_path.iterdir()) == []
