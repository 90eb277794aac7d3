"""Opens sockets for another program, and becomes that program.

What is opened here belongs to the command from the exec on. A unix path stays when the command has
ended: nobody of ours is left to remove it. The next opener replaces it, for nobody serves it then.
"""

from __future__ import annotations

import os
import sys

from forkfirst import errors
from forkfirst.stages import listeners as opening
from forkfirst.systemd import passing
from forkfirst.unix import sockets, spawn
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

    from forkfirst.plan.listener import Listener
    from forkfirst.systemd.activation import Passed


class Held(Value):
    """One socket, open, at whatever number it got.

    Attributes:
        name: What the program asks for it by.
        fd: The descriptor.
        kind: The kind of the listener that it was opened from.
        address: Where it is really bound, in the grammar of addresses; port 0 is a number now.
        made: The unix path that opening it has made, with inode and device; or None.
    """

    name: str
    fd: int
    kind: str
    address: str
    made: tuple[str, tuple[int, int]] | None = None


def find_program(name: str) -> str:
    """Return where the program called *name* is: see `unix.spawn.find_program`."""
    return spawn.find_program(name)


def open_sockets(
    wanted: Iterable[Listener], *, reuseaddr: bool = True, blocking: bool = True
) -> tuple[Held, ...]:
    """Open each of *wanted*, in order; those of `fd:` and `systemd:` are taken over.

    What this opens is *blocking*, as a service manager passes it. It is set here, once and before
    anybody has the socket: a program that has made it non-blocking would hang if it were set again.

    Raises:
        ForkfirstError: One cannot be had; the others are closed, and their paths removed.
    """
    held: list[Held] = []
    passed: tuple[Passed, ...] | None = None
    try:
        for listener in wanted:
            if listener.inherited:
                if passed is None:
                    from forkfirst.systemd import activation  # noqa: PLC0415 - only for these

                    passed = activation.take_environment(unaddressed=True)
                held.append(_take_over(listener, passed, held))
            else:
                held.append(_open(listener, reuseaddr=reuseaddr, blocking=blocking))
    except BaseException:
        close_sockets(held)
        raise
    return tuple(held)


def close_sockets(held: Iterable[Held]) -> None:
    """Close each socket, and remove the paths that opening them made, if they are still theirs."""
    for each in held:
        remove_path(each)
        os.close(each.fd)


def remove_path(held: Held) -> None:
    """Remove the path that opening *held* made, if it is still that socket's. It must be open."""
    if held.made is None:
        return
    try:
        sockets.remove_unix_path(*held.made)
    except errors.ForkfirstError:
        return  # a directory that was closed to us meanwhile: the rest must still be tidied


def find_replaced(count: int) -> list[int]:
    """Return the descriptors that this process inherited where *count* sockets have to be.

    Call it before anything is opened.
    """
    found = []
    for number in range(passing.FIRST_FD, passing.FIRST_FD + count):
        try:
            inherited = os.get_inheritable(number)
        except OSError:
            continue
        if inherited:
            found.append(number)
    return found


def become_command(
    argv: Sequence[str], held: Sequence[Held], *, path: str, with_pid: bool
) -> NoReturn:
    """Execute *argv* in this very process, with the sockets at 3, 4, ….

    Args:
        argv: The command as it was given.
        held: Its sockets.
        path: Where its program is.
        with_pid: Whether to say for whom the sockets are (LISTEN_PID).

    Raises:
        ForkfirstError: It cannot be executed. The paths of the sockets are gone.

    Source: execve(2), sd_listen_fds(3).
    """
    names = [each.name for each in held]
    environment = passing.make_environment(os.environ, names, pid=os.getpid() if with_pid else None)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        spawn.place_descriptors([each.fd for each in held], passing.FIRST_FD)
        spawn.restore_own_behaviour()
        os.execve(path, tuple(argv), environment)  # noqa: S606 - what the person asked for, no shell
    except BaseException as error:
        for each in held:
            remove_path(each)
        if isinstance(error, OSError):
            raise spawn.make_refusal(path, error) from error
        raise
    raise AssertionError


def _open(listener: Listener, *, reuseaddr: bool, blocking: bool) -> Held:
    fd = opening.open_listener(listener, reuseaddr=reuseaddr)
    os.set_blocking(fd, blocking)
    made = None
    if listener.path is not None:
        identity = sockets.look_up_unix_path(listener.path)
        made = None if identity is None else (listener.path, identity)
    return Held(
        name=listener.name,
        fd=fd,
        kind=listener.kind,
        address=sockets.address_text(fd),
        made=made,
    )


def _take_over(listener: Listener, passed: tuple[Passed, ...], held: Sequence[Held]) -> Held:
    """Return the descriptor that *listener* refers to, which must be a socket."""
    fd = listener.number
    if fd is None:
        taken = {each.fd for each in held}
        found = [one.fd for one in passed if one.name == listener.reference]
        free = [one for one in found if one not in taken]
        if not free:
            what = "was given twice" if found else "was not passed to this process"
            names = ", ".join(dict.fromkeys(one.name for one in passed)) or "nothing"
            message = f'cannot take {listener}: "{listener.reference}" {what} (passed: {names})'
            raise errors.ConfigError(message)
        fd = free[0]
    if fd in {each.fd for each in held}:
        message = f"cannot take {listener}: descriptor {fd} is given twice"
        raise errors.ConfigError(message)
    sockets.adopt(fd)
    return Held(name=listener.name, fd=fd, kind=listener.kind, address=sockets.address_text(fd))
