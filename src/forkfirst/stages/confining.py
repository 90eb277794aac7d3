"""Takes power away from a service: who it is, what it may, how much it may use.

Loaded only for a service that asks for one of these. See `unix.privileges` for the order, which is
the kernel's.
"""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.plan import confinement
from forkfirst.plan.host import Identity
from forkfirst.unix import accounts, privileges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from forkfirst.plan.service import Declaration
    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table

_STANDARD = (
    *(
        "_socket",
        "atexit",
        "codecs",
        "ctypes",
        "faulthandler",
        "gc",
        "json",
        "linecache",
    ),
    *(
        "pathlib",
        "queue",
        "resource",
        "signal",
        "socket",
        "stringprep",
        "threading",
        "tokenize",
        "traceback",
    ),
    *("ast", "collections.abc", "concurrent.futures.thread", "contextlib", "pwd", "warnings"),
    *("encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.utf_8"),
    *("encodings.unicode_escape", "encodings.raw_unicode_escape", "encodings.punycode"),
)
_OURS = (
    *("control.caller", "control.protocol", "control.server"),
    *("runtime.context", "runtime.ending", "runtime.pulse", "runtime.stacks", "runtime.stopping"),
    *("runtime.outside", "runtime.waiting", "systemd.journal", "systemd.notify"),
    *("runtime.target", "stages.answers", "stages.child", "stages.fork_first", "stages.program"),
    "unix.channel",
    *("unix.log_file", "unix.session", "unix.signals", "unix.socket_facts", "unix.sockets"),
)
_TEMPLATE = (
    *("stages.preload.template", "guard.descriptors", "guard.hazard", "guard.loops"),
    *("guard.processes", "guard.threads"),
)
_PAUSING = ("runtime.accepting", "unix.stand_in")
_PLAIN = ("runtime.plain", *_PAUSING)
_BY_RUNTIME = {
    "auto": ("runtime.asyncio_", *_PLAIN),
    "asyncio": ("runtime.asyncio_",),
    "uvloop": ("runtime.uvloop_", *_PAUSING),
    "trio": ("runtime.trio_", *_PAUSING),
    "none": _PLAIN,
    "command": ("runtime.command", "systemd.notify_receiver"),
}


# -- before anything is opened ---------------------------------------------------------------------


def look_up(service: Declaration) -> Identity | None:
    """Return whom *service* wants to become; None if it stays who it is.

    Also reads what it says of limits and capabilities, so that a mistake is told now.

    Raises:
        ConfigError: There is no such user, group, limit or capability.
    """
    from forkfirst.unix import limits  # noqa: PLC0415 - loaded where there is one

    for text in service.limits:
        limits.parse_limit(text)
    privileges.parse_capabilities(service.keep_capabilities)
    if not service.user:
        return None
    account = accounts.look_up_user(service.user)
    gid, groups = account.gid, set(account.groups)
    if service.group:
        gid = accounts.look_up_group(service.group)
        groups = set(os.getgrouplist(account.name, gid))
    groups |= {gid, *map(accounts.look_up_group, service.supplementary)}
    return Identity(
        name=account.name,
        uid=account.uid,
        gid=gid,
        groups=tuple(sorted(groups)),
        home=account.home,
    )


def _check_readable(step: confinement.CheckReadable, start: Start) -> None:
    from forkfirst.unix import access  # noqa: PLC0415 - only here

    who = step.identity
    paths = list(_list_program_paths(step, start))
    if not step.command:
        paths += _list_library_paths(start)
    access.check_readable(who.uid, who.gid, who.groups, paths, name=who.name)


def _list_program_paths(step: confinement.CheckReadable, start: Start) -> Iterable[str]:
    if step.command:
        if "/" in step.command:  # else it is looked for on the path, as that user
            yield os.path.join(start.directory, step.root + step.command)
        return
    place = step.target.rpartition(":")[0]
    if place.endswith(".py"):
        yield os.path.join(step.directory, place)
        return
    first = place.partition(".")[0]
    for entry in (f"{step.directory}/{first}", f"{step.directory}/{first}.py"):
        if os.path.exists(entry):
            yield entry


def _list_library_paths(start: Start) -> Iterable[str]:
    """Return what the interpreter needs, without what is on the path only by accident.

    That is the current directory, of `python -m`, and root's own site-packages; unless forkfirst
    itself is there.
    """
    import sys  # noqa: PLC0415 - loaded by the interpreter

    from forkfirst.unix import access  # noqa: PLC0415 - as above

    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    site = sys.modules.get("site")
    accidental = {start.directory, getattr(site, "USER_SITE", None)} - {own}
    return [path for path in access.find_interpreter_files() if path not in accidental]


class acting_as_owner:  # noqa: N801 - used as a `with` statement's verb
    """Act as *identity*, if it owns *directory*; what is made there is then that user's.

    The saved user id stays root's, so this can be undone: it protects from links that the user
    may have put there, and gives nothing up. The process must have one thread.
    """

    def __init__(self, identity: Identity | None, directory: str) -> None:
        self._identity = identity
        self._directory = directory
        self._before: tuple[int, list[int]] | None = None

    def __enter__(self) -> None:
        who = self._identity
        if who is None or os.stat(self._directory).st_uid != who.uid:
            return
        self._before = os.getegid(), os.getgroups()
        os.setgroups(who.groups)
        os.setegid(who.gid)
        os.seteuid(who.uid)

    def __exit__(
        self,
        _: type[BaseException] | None,
        __: BaseException | None,
        ___: TracebackType | None,
    ) -> None:
        if self._before is not None:
            os.seteuid(0)
            os.setegid(self._before[0])
            os.setgroups(self._before[1])


def make_directory(path: str, mode: int, owner: Identity) -> None:
    """Make *path* for *owner*, or accept the one that is there if it is *owner*'s alone.

    Raises:
        UnsafePathError: It is somebody else's, or no directory.
        PermissionRefusedError: *owner* could not reach it.
        OSError: It cannot be made.
    """
    from forkfirst.unix import access  # noqa: PLC0415 - only here

    _make_parents(os.path.dirname(path))
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        facts = os.lstat(path)
        if facts.st_uid == owner.uid and facts.st_mode & 0o170022 == 0o040000:  # noqa: PLR2004 - a directory that neither group nor others can write
            access.check_readable(owner.uid, owner.gid, owner.groups, (path,), name=owner.name)
            return
        message = (
            f"cannot trust directory {path}: it belongs to uid {facts.st_uid} with mode "
            f"{facts.st_mode:06o}"
        )
        hint = f"it must be {owner.name}'s alone: chown -R {owner.name} {path}"
        raise errors.UnsafePathError(message, hint=hint) from None
    os.chown(path, owner.uid, owner.gid)
    access.check_readable(owner.uid, owner.gid, owner.groups, (path,), name=owner.name)


def _make_parents(path: str) -> None:
    if os.path.isdir(path):
        return
    _make_parents(os.path.dirname(path))
    os.mkdir(path)
    os.chmod(path, 0o755)  # noqa: S103 - what is below is for others to reach


# -- in the service --------------------------------------------------------------------------------


def _set_limits(step: confinement.SetLimits, _: Start) -> None:
    from forkfirst.unix import limits  # noqa: PLC0415 - only here

    limits.set_limits(tuple(map(limits.parse_limit, step.limits)))


def _load_modules(step: confinement.LoadModules, start: Start) -> None:
    for name in _STANDARD:
        __import__(name)
    supervisor = ("stages.supervise.loop",) if start.plan.program else ()
    template = _TEMPLATE if start.plan.template else ()
    for name in (*_OURS, *_BY_RUNTIME[step.runtime], *supervisor, *template):
        __import__(f"forkfirst.{name}")


def _change_root(step: confinement.ChangeRoot, start: Start) -> None:
    # Inside there may be no /proc, and what it says of us must be read at the very end.
    start.own_status = os.open("/proc/thread-self/status", os.O_RDONLY | os.O_CLOEXEC)
    privileges.chroot(step.path)


def _drop_privileges(step: confinement.DropPrivileges, _: Start) -> None:
    who = step.identity
    privileges.drop_privileges(who.uid, who.gid, who.groups, hold_capabilities=True)


def _clear_capabilities(step: confinement.ClearCapabilities, _: Start) -> None:
    privileges.clear_capabilities(step.keep)


def _forbid_new_privileges(_: confinement.ForbidNewPrivileges, __: Start) -> None:
    privileges.set_no_new_privileges()


def _set_not_dumpable(_: confinement.SetNotDumpable, __: Start) -> None:
    privileges.set_not_dumpable()


def _verify_dropped(step: confinement.VerifyDropped, start: Start) -> None:
    who = step.identity
    privileges.verify_dropped(
        who.uid,
        who.gid,
        who.groups,
        step.keep,
        no_new_privileges=step.no_new_privileges,
        status=start.own_status,
    )
    if start.own_status is not None:
        os.close(start.own_status)
        start.own_status = None


TABLE: Table = {
    confinement.CheckReadable: _check_readable,
    confinement.SetLimits: _set_limits,
    confinement.LoadModules: _load_modules,
    confinement.ChangeRoot: _change_root,
    confinement.DropPrivileges: _drop_privileges,
    confinement.ClearCapabilities: _clear_capabilities,
    confinement.ForbidNewPrivileges: _forbid_new_privileges,
    confinement.SetNotDumpable: _set_not_dumpable,
    confinement.VerifyDropped: _verify_dropped,
}
