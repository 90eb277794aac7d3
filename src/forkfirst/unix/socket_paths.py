"""Unix sockets that have a path: made, taken over when stale, and removed, never at another's cost.

The invariant: between looking at a path and changing it, no other opener of ours is between the
same two steps. A lock file next to the path (`.NAME.lock`, gone again when the call returns) sees
to that. The alternatives, and why not:

* bind to a temporary name and rename it over the path: atomic, but the socket keeps the name that
  was bound. `getsockname`, ss(8), /proc/net/unix and every program that asks what it was given
  would show the temporary name for ever, and the rename would still have to be guarded.
* flock(2) of the directory: no file, but /run and /tmp are shared, and a lock on a directory there
  has a meaning already (systemd-tmpfiles spares what is locked).
* look at the inode again before unlink(2): makes the gap small, never closes it.
"""

# pathlib is not loaded before the fork
from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat

from forkfirst.errors import AddressInUseError, CannotCreateError, PermissionRefusedError
from forkfirst.unix.socket_facts import escape

LARGEST_BACKLOG = 65535
"""More than any usual limit: listen(2) lowers it to net.core.somaxconn, so that limit is used."""

TYPES = {
    "unix": socket.SOCK_STREAM,
    "unixgram": socket.SOCK_DGRAM,
    "seqpacket": socket.SOCK_SEQPACKET,
}


def open_unix(  # noqa: PLR0913 - the options of a path
    path: str,
    *,
    kind: str = "unix",
    backlog: int | None = None,
    mode: int | None = None,
    owner: int | None = None,
    group: int | None = None,
) -> int:
    """Return a socket bound to *path*, listening unless it is "unixgram".

    A socket that nobody serves any more is replaced. The permissions (*mode*, or what the umask
    leaves; *owner* and *group* as numbers) are set before anybody can connect. The descriptor is
    close-on-exec and non-blocking. Nothing is left behind when it fails.

    Raises:
        AddressInUseError: Somebody serves that path; it was not touched.
        CannotCreateError: Something that is not a socket is there, or the directory is not.
        PermissionRefusedError: This user may not make it, or may not give it away.

    Source: unix(7), flock(2).
    """
    address = f"{kind}:{escape(path)}"
    try:
        lock = _lock(path)
    except OSError as error:
        raise _refuse(address, error) from error
    try:
        return _open_locked(address, path, kind, backlog, mode, owner, group)
    except OSError as error:
        raise _refuse(address, error) from error
    finally:
        _unlock(path, lock)


def look_up_unix_path(path: str) -> tuple[int, int] | None:
    """Return inode and device of the socket at *path*: who it is. None if no socket is there."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_dev) if stat.S_ISSOCK(found.st_mode) else None


def remove_unix_path(path: str, identity: tuple[int, int]) -> bool:
    """Remove *path* if it is still the socket with that inode and device; return whether it was.

    Call it while the socket is open: as long as it is, the kernel gives its inode to no other
    file. Whoever handed the socket to a successor must not call it at all.

    Raises:
        PermissionRefusedError: This user may not change the directory.
        CannotCreateError: The directory refused in another way.
    """
    try:
        lock = _lock(path)
    except FileNotFoundError:
        return False  # the whole directory is gone
    except OSError as error:
        raise _refuse_removal(path, error) from error
    try:
        if look_up_unix_path(path) != identity:
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refuse_removal(path, error) from error
    finally:
        _unlock(path, lock)
    return True


def _open_locked(  # noqa: PLR0913, PLR0917 - open_unix, with the lock held
    address: str,
    path: str,
    kind: str,
    backlog: int | None,
    mode: int | None,
    owner: int | None,
    group: int | None,
) -> int:
    with socket.socket(socket.AF_UNIX, TYPES[kind]) as endpoint:
        if mode is not None:
            _restrict(endpoint, mode)
        try:
            endpoint.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(address, path, kind, error)
            endpoint.bind(path)
        try:
            _set_permissions(path, mode, owner, group)
            if kind != "unixgram":
                endpoint.listen(LARGEST_BACKLOG if backlog is None else backlog)
        except BaseException:
            os.unlink(path)
            raise
        endpoint.setblocking(False)  # noqa: FBT003 - the name says what
        return endpoint.detach()


def _remove_stale(address: str, path: str, kind: str, error: OSError) -> None:
    """Remove the socket at *path* if nobody serves it; raise otherwise."""
    from forkfirst.unix import ports  # noqa: PLC0415 - only where something is in the way

    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return  # removed meanwhile, by somebody who does not know our lock
    if not stat.S_ISSOCK(mode):
        message = f"cannot listen on {address}: {_describe_file(mode)} is there, and was left alone"
        raise CannotCreateError(message) from error
    if _is_served(path, kind):
        raise ports.make_refusal(address, error, holder=ports.find_path_holder(path)) from error
    # Bound and not yet listening refuses connections just as a dead one does. None of ours can be
    # so (the lock), but another program could be between its bind(2) and its listen(2).
    holder = None if kind == "unixgram" else ports.find_path_holder(path, accepting=False)
    if holder is not None:
        raise ports.make_refusal(address, error, holder=holder) from error
    os.unlink(path)


def _is_served(path: str, kind: str) -> bool:
    """Whether a connection to *path* is taken by anybody. It is made, and closed at once."""
    with socket.socket(socket.AF_UNIX, TYPES[kind]) as probe:
        probe.setblocking(False)  # noqa: FBT003 - a full queue of a living service must not hold us up
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            # EAGAIN: its queue is full. EPROTOTYPE: alive, and of another type.
            if error.errno in {errno.EAGAIN, errno.EPROTOTYPE}:
                return True
            raise  # EACCES and the like: it cannot be known, so nothing is taken
    return True


def _restrict(endpoint: socket.socket, mode: int) -> None:
    """Let bind(2) make the path with at most *mode*: nobody finds it more open for a moment.

    Source: unix(7) does not say it, but Linux makes the path with the mode of the socket's own
    inode, less the umask. Elsewhere fchmod(2) of a socket fails, and the mode is only set after.
    """
    try:
        os.fchmod(endpoint.fileno(), mode)
    except OSError:
        return


def _set_permissions(path: str, mode: int | None, owner: int | None, group: int | None) -> None:
    """Set owner, group and mode of the socket at *path*, and of nothing that took its place."""
    if mode is None and owner is None and group is None:
        return
    flags = getattr(os, "O_PATH", None)
    if flags is None or not os.path.isdir("/proc/self/fd"):
        _apply_permissions(path, mode, owner, group)
        return
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # In a directory of somebody else's, the name could be a link to /etc/shadow by now.
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise OSError(errno.EEXIST, "somebody replaced the socket")
        _apply_permissions(f"/proc/self/fd/{handle}", mode, owner, group)
    finally:
        os.close(handle)


def _apply_permissions(path: str, mode: int | None, owner: int | None, group: int | None) -> None:
    if owner is not None or group is not None:
        try:
            os.chown(path, -1 if owner is None else owner, -1 if group is None else group)
        except PermissionError as error:
            wanted = [f"uid {owner}"] * (owner is not None) + [f"gid {group}"] * (group is not None)
            why = f"this user may not give it to {' and '.join(wanted)}"
            raise PermissionError(error.errno, why) from error
    if mode is not None:
        os.chmod(path, mode)


def _lock(path: str) -> int:
    """Return a descriptor that holds the lock of *path*. Waits for other openers, never long.

    Raises:
        BlockingIOError: Another user holds the lock; waiting would let that user stop us for ever.
    """
    name = _lock_name(path)
    while True:
        # O_NONBLOCK: if somebody put a FIFO or a device there, opening it must not hang
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        lock = os.open(name, flags, 0o600)
        try:
            ours = os.fstat(lock).st_uid in {0, os.geteuid()}
            fcntl.flock(lock, fcntl.LOCK_EX if ours else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(lock, name):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # removed by its last holder: it would exclude nobody who comes later


def _unlock(path: str, lock: int) -> None:
    name = _lock_name(path)
    try:
        if _is_at(lock, name):
            os.unlink(name)  # before the close: whoever waits for it sees that it is gone
    except OSError:
        pass  # a lock file that stays is harmless: the lock is not the file
    finally:
        os.close(lock)


def _is_at(descriptor: int, name: str) -> bool:
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_ino, found.st_dev) == (mine.st_ino, mine.st_dev)


def _lock_name(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.lock")


def _describe_file(mode: int) -> str:
    names = (
        (stat.S_ISREG, "a regular file"),
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
    )
    return next((name for test, name in names if test(mode)), "a device")


def _refuse(address: str, error: OSError) -> Exception:
    from forkfirst.unix import ports  # noqa: PLC0415 - only for a refusal

    if isinstance(error, BlockingIOError):
        return AddressInUseError(f"cannot listen on {address}: another user is opening it just now")
    return ports.make_refusal(address, error)


def _refuse_removal(path: str, error: OSError) -> Exception:
    message = f"cannot remove the socket {path}: {(error.strerror or str(error)).lower()}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return PermissionRefusedError(message)
    return CannotCreateError(message)
