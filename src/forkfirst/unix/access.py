"""What another user could read, told from modes and owners, before anybody becomes that user.

After a drop of privileges the same trouble would show as a ModuleNotFoundError for a module that
is there, or as a loader that misses libpython: the usual case is a virtual environment, or an
interpreter, below a home directory of mode 0700.
"""

from __future__ import annotations

import os
import stat
import sys

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_READ, _SEARCH = 4, 1  # the bits of a mode; search is what execution means for a directory
_MOST_LINKS = 40  # as the kernel's own limit, path_resolution(7)


def find_interpreter_files() -> tuple[str, ...]:
    """Return what this interpreter needs to start and to import: program, libpython, `sys.path`.

    Entries of `sys.path` that do not exist are left out. Does not look inside directories.
    """
    files = [sys.executable, *_find_libraries(), sys.base_prefix]
    files += [os.path.abspath(entry) for entry in sys.path]
    return tuple(dict.fromkeys(path for path in files if path and os.path.lexists(path)))


def _find_libraries() -> list[str]:
    """Return the shared objects that this process has mapped, or a guess where none can be seen."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as file:
            columns = (line.rstrip("\n").split(None, 5) for line in file)
            return [row[5] for row in columns if len(row) == 6 and row[5].startswith("/")]  # noqa: PLR2004 - the columns of proc_pid_maps(5)
    except OSError:
        import sysconfig  # noqa: PLC0415 - 3 ms, and only where there is no /proc

        folder = sysconfig.get_config_var("LIBDIR")
        name = sysconfig.get_config_var("LDLIBRARY")
        return [os.path.join(folder, name)] if folder and name else []


def check_readable(
    uid: int, gid: int, groups: tuple[int, ...], paths: Iterable[str], *, name: str = ""
) -> None:
    """Refuse if the user *uid* could not reach and read each of *paths*.

    Walks every component and every symbolic link; a directory must be searchable on the way and
    readable at the end; `sys.executable` must be executable. Judges by modes and owners alone: an
    entry with an access control list is not judged, nor is what a security module forbids. A path
    that does not exist is somebody else's error. *name* is what the message calls the user.

    Raises:
        PermissionRefusedError: A component is closed to that user; the message names it.

    Source: path_resolution(7), acl(5).
    """
    if uid == 0:
        return  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    judged: set[tuple[str, int]] = set()
    for path in paths:
        for component, need, entry in _walk(path):
            if (component, need) in judged:
                continue
            judged.add((component, need))
            if not _allows(entry, need, uid, {gid, *groups}) and not _has_acl(component):
                raise _make_refusal(component, need, entry, path, name or _describe_user(uid))


def _walk(path: str) -> Iterable[tuple[str, int, os.stat_result]]:
    """Yield each thing that opening *path* touches: what it is, the bits it needs, its status."""
    pending = [part for part in reversed(os.path.abspath(path).split("/")) if part]
    here, links = "", 0
    yield "/", _SEARCH, os.stat("/")
    while pending:
        part = pending.pop()
        if part == "..":  # only ever out of a link: abspath has removed the others
            here = here.rpartition("/")[0]
            continue
        candidate = f"{here}/{part}"
        try:
            entry = os.lstat(candidate)
        except OSError:
            return
        if stat.S_ISLNK(entry.st_mode):  # its own mode means nothing
            links += 1
            if links > _MOST_LINKS:
                return
            target = os.readlink(candidate)
            here = "" if target.startswith("/") else here
            pending += [piece for piece in reversed(target.split("/")) if piece not in ("", ".")]
            continue
        here = candidate
        need = _SEARCH if pending else _READ
        if not pending and (stat.S_ISDIR(entry.st_mode) or path == sys.executable):
            need = _READ | _SEARCH
        yield here, need, entry


def _allows(entry: os.stat_result, need: int, uid: int, groups: set[int]) -> bool:
    # The first class that fits decides, even if a later one would allow more.
    shift = 6 if entry.st_uid == uid else 3 if entry.st_gid in groups else 0
    return (entry.st_mode >> shift) & need == need


def _has_acl(path: str) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except (AttributeError, OSError):  # no such call on this system, or no attributes on this file
        return False


def _make_refusal(
    component: str, need: int, entry: os.stat_result, path: str, user: str
) -> errors.PermissionRefusedError:
    mode = f"{stat.S_IMODE(entry.st_mode):04o}"
    state = f"{component} is {mode} and belongs to {_describe_user(entry.st_uid)}"
    bits = ("r" if need & _READ else "") + ("x" if need & _SEARCH else "")
    way = "" if component == path else f", on the way to {path}"
    return errors.PermissionRefusedError(
        f"cannot run as {user}: {state}{way}",
        hint=f"install the program and its Python where {user} can read them, such as below /opt, "
        f"or allow it: chmod o+{bits} {component}",
    )


def _describe_user(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only for a message

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
