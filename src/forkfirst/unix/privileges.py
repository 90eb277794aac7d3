"""Becoming another user for good, and proving it.

The order is the kernel's, and each step makes the next one impossible or unnecessary:

    chroot → drop_privileges → clear_capabilities → set_no_new_privileges → set_not_dumpable
           → verify_dropped

Everything that needs root (listeners, log, pid file) is open before. On Linux all of this
concerns the calling thread, except for the ids, so it happens while there is one thread.
"""

from __future__ import annotations

import os
import sys

from forkfirst import errors
from forkfirst.unix import prctl
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CAPABILITY_SETS = {
    "CapInh": "inheritable",
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}
_ID_FIELDS = 4  # real, effective, saved, file system


class Identity(Value):
    """What a process is to be after the drop, and nothing beyond."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    keep: tuple[str, ...] = ()
    no_new_privileges: bool = True


def chroot(path: str) -> None:
    """Make *path* the root directory, and the working directory.

    Does not confine root: only a process without CAP_SYS_CHROOT stays inside.

    Raises:
        OSError: *path* is not a directory, or the process lacks CAP_SYS_CHROOT.

    Source: chroot(2).
    """
    os.chroot(path)
    os.chdir("/")  # a working directory outside would be the way out


def drop_privileges(
    uid: int, gid: int, groups: tuple[int, ...], *, hold_capabilities: bool = False
) -> None:
    """Become *uid* for good: real, effective and saved ids, and exactly *groups*.

    Does not touch the environment. With *hold_capabilities* root's capabilities stay permitted,
    though not effective, because without them nothing could be taken out of the bounding set any
    more nor be kept: `clear_capabilities` must follow, and `verify_dropped` notices if it did not.
    Without it the kernel clears all sets but the bounding one, if the process was root.

    Raises:
        PermissionError: The process lacks CAP_SETUID or CAP_SETGID.

    Source: setgroups(2), setresgid(2), setresuid(2).
    """
    if sys.platform == "linux":
        # Also when nothing is held: an inherited "keep" would keep everything. And it imports
        # ctypes now, since the new user may not be able to read it.
        prctl.set_keep_capabilities(keep=hold_capabilities)
    os.setgroups(groups)  # first: after the uid is gone, the kernel would refuse it
    if hasattr(os, "setresuid"):
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)  # all three: a saved uid of 0 is a way back to root
    else:  # macOS: root's setgid(2) and setuid(2) set all three there
        os.setgid(gid)
        os.setuid(uid)


def clear_capabilities(keep: tuple[str, ...]) -> None:
    """Leave no capability in any set but those in *keep*, which end up in all five.

    The bounding set keeps them so that what is executed may have them, the ambient set so that it
    does. After `drop_privileges` this works only if that held the capabilities. For the calling
    thread alone. Does nothing where there are no capabilities: on systems other than Linux.

    Raises:
        ConfigError: A name in *keep* is no capability.
        PermissionError: One of *keep* is not permitted, or the bounding set cannot be reduced for
            want of CAP_SETPCAP: nothing was held.

    Source: capabilities(7), capset(2), PR_CAP_AMBIENT(2const).
    """
    kept = parse_capabilities(keep)
    if sys.platform != "linux":
        return
    _, permitted, inheritable = prctl.read_capabilities()
    surplus = prctl.read_bounding_set() & ~kept
    if surplus:
        needed = prctl.make_capability_mask(("cap_setpcap",))
        prctl.write_capabilities(
            effective=permitted & needed, permitted=permitted, inheritable=inheritable
        )
        prctl.drop_from_bounding_set(surplus)
    prctl.write_capabilities(effective=kept, permitted=kept, inheritable=kept)
    prctl.replace_ambient_set(kept)
    prctl.set_keep_capabilities(keep=False)


def parse_capabilities(names: tuple[str, ...]) -> int:
    """Return the mask of *names*: any case, with or without `cap_`.

    Raises:
        ConfigError: A name is no capability.
    """
    full = [
        name.lower() if name.lower().startswith("cap_") else f"cap_{name.lower()}" for name in names
    ]
    unknown = [name for name in full if name not in prctl.CAPABILITIES]
    if unknown:
        message = f'cannot keep the capability "{unknown[0]}": there is none of that name'
        raise errors.ConfigError(message, hint="capabilities(7) has the names")
    return prctl.make_capability_mask(full)


def set_no_new_privileges() -> None:
    """Let no execve(2) of this process or its descendants ever give privileges again.

    Does nothing on systems other than Linux.

    Source: PR_SET_NO_NEW_PRIVS(2const).
    """
    if sys.platform == "linux":
        prctl.set_no_new_privileges()


def set_not_dumpable() -> None:
    """Let no process of the same user read this one's memory; there will be no core dumps either.

    Its files in /proc belong to root from then on, so `/proc/PID/fd` and the like answer only to
    root. Does nothing on systems other than Linux.

    Source: PR_SET_DUMPABLE(2const), ptrace(2).
    """
    if sys.platform == "linux":
        prctl.set_dumpable(dumpable=False)


def verify_dropped(  # noqa: PLR0913 - the whole of an identity
    uid: int,
    gid: int,
    groups: tuple[int, ...],
    keep: tuple[str, ...],
    *,
    no_new_privileges: bool = True,
    status: int | None = None,
) -> None:
    """Refuse to go on unless this thread is *uid* and no more, as the kernel tells it.

    Reads /proc/self/status, then tries to become root again. Should that succeed, the process *is*
    root again when this raises: it must end. Elsewhere than on Linux only the ids can be read.
    *status* is that file, opened earlier by this thread: a new root directory may have no /proc.

    Raises:
        PermissionRefusedError: Something of the former identity is left or can be regained; the
            message names all of it.

    Source: proc_pid_status(5), credentials(7).
    """
    if sys.platform == "linux":
        wanted = Identity(
            uid=uid, gid=gid, groups=groups, keep=keep, no_new_privileges=no_new_privileges
        )
        left = find_leftovers(_read_status(status), wanted)
    else:
        left = _find_leftover_ids(
            os.getuid(), os.geteuid(), os.getgid(), os.getegid(), uid=uid, gid=gid
        )
        if not set(os.getgroups()) <= {gid, *groups}:
            left += ("it is still in other groups",)
    left += _find_regained(uid, gid)
    if left:
        message = f"refusing to run as uid {uid}: {'; '.join(left)}"
        raise errors.PermissionRefusedError(message)


def find_leftovers(status: Mapping[str, str], wanted: Identity) -> tuple[str, ...]:
    """Return what in *status*, the lines of /proc/PID/status, is not as *wanted*.

    A capability that was to be kept and is not is named as well: a service would fail later.
    """
    left = [
        f"its {kind}s (real, effective, saved, file system) are {status[field]}, not all {number}"
        for field, kind, number in (("Uid", "uid", wanted.uid), ("Gid", "gid", wanted.gid))
        if [int(word) for word in status[field].split()] != [number] * _ID_FIELDS
    ]
    have = {int(word) for word in status["Groups"].split()}
    if have != set(wanted.groups):
        left.append(f"its groups are {sorted(have)}, not {sorted(set(wanted.groups))}")
    kept = parse_capabilities(wanted.keep)
    for field, name in _CAPABILITY_SETS.items():
        if field not in status:  # CapAmb came with Linux 4.3
            continue
        mask = int(status[field], 16)
        if surplus := prctl.describe_capability_mask(mask & ~kept):
            left.append(f"its {name} capabilities still have {_shorten(surplus)}")
        if missing := prctl.describe_capability_mask(kept & ~mask):
            left.append(f"its {name} capabilities lack {_shorten(missing)}")
    if wanted.no_new_privileges and status.get("NoNewPrivs") != "1":
        left.append("no_new_privs is not set")
    return tuple(left)


def _find_leftover_ids(*have: int, uid: int, gid: int) -> tuple[str, ...]:
    wanted = (uid, uid, gid, gid)
    return () if have == wanted else (f"its uids and gids are {have}, not {wanted}",)


def _find_regained(uid: int, gid: int) -> tuple[str, ...]:
    """Try each way back to root, and name those that worked.

    Only real attempts count: a saved id, a capability, a user namespace or a set-user-id quirk
    that the fields above do not show would be found here.
    """
    attempts: list[tuple[str, Callable[[], None]]] = [
        ("setgroups", lambda: os.setgroups(os.getgroups())),  # changes nothing where it works
    ]
    if gid != 0:
        attempts += [("setegid(0)", lambda: os.setegid(0)), ("setgid(0)", lambda: os.setgid(0))]
    if uid != 0:
        attempts += [("seteuid(0)", lambda: os.seteuid(0)), ("setuid(0)", lambda: os.setuid(0))]
    else:
        attempts.clear()  # root was asked for: all of it succeeds, and proves nothing
    regained = []
    for name, attempt in attempts:
        try:
            attempt()
        except OSError:
            continue
        regained.append(f"{name} succeeded")
    return tuple(regained)


def _read_status(status: int | None) -> dict[str, str]:
    # thread-self, not self: capabilities belong to a thread, and self shows the first one's
    path = "/proc/thread-self/status" if status is None else status
    with open(path, "rb", closefd=status is None) as file:
        # UTF-8 and nothing else: the codec of any other name would be imported now, as the new
        # user, who may not be able to read the standard library
        lines = (line.partition(":") for line in file.read().decode("utf-8", "replace").split("\n"))
        return {name: value.strip() for name, _, value in lines}


def _shorten(names: tuple[str, ...]) -> str:
    few = 3
    return ", ".join(names[:few]) + (f" and {len(names) - few} more" if len(names) > few else "")
