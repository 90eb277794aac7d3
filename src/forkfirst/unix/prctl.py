"""What only prctl(2), capget(2) and capset(2) can say of and do to a process: Linux only.

Python has no binding for them, so these calls go through ctypes, which is imported inside the
functions: it costs some 1.5 ms, and most services need none of it. If a service changes its user,
it must have been imported before the change, because the new user may not be able to read it;
`privileges.drop_privileges` sees to that.

Everywhere but on Linux each function raises OSError with ENOSYS. A failure on Linux is the
kernel's own OSError. All of it concerns the calling thread alone: call it while there is one.
"""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# <linux/prctl.h>
_SET_PDEATHSIG = 1
_GET_DUMPABLE = 3
_SET_DUMPABLE = 4
_GET_KEEPCAPS = 7
_SET_KEEPCAPS = 8
_CAPBSET_READ = 23
_CAPBSET_DROP = 24
_SET_CHILD_SUBREAPER = 36
_GET_CHILD_SUBREAPER = 37
_SET_NO_NEW_PRIVS = 38
_GET_NO_NEW_PRIVS = 39
_CAP_AMBIENT = 47
_AMBIENT_RAISE = 2
_AMBIENT_CLEAR_ALL = 4
# <linux/capability.h>: the only version without a limit of 32 capabilities
_CAPABILITY_VERSION_3 = 0x20080522

_LONGEST_NAME = 15

# In the order of their numbers, which is the kernel's and never changes.
CAPABILITIES: tuple[str, ...] = (
    *("cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid"),
    *("cap_kill", "cap_setgid", "cap_setuid", "cap_setpcap", "cap_linux_immutable"),
    *("cap_net_bind_service", "cap_net_broadcast", "cap_net_admin", "cap_net_raw", "cap_ipc_lock"),
    *("cap_ipc_owner", "cap_sys_module", "cap_sys_rawio", "cap_sys_chroot", "cap_sys_ptrace"),
    *("cap_sys_pacct", "cap_sys_admin", "cap_sys_boot", "cap_sys_nice", "cap_sys_resource"),
    *("cap_sys_time", "cap_sys_tty_config", "cap_mknod", "cap_lease", "cap_audit_write"),
    *("cap_audit_control", "cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog"),
    *("cap_wake_alarm", "cap_block_suspend", "cap_audit_read", "cap_perfmon", "cap_bpf"),
    "cap_checkpoint_restore",
)


def make_capability_mask(names: Iterable[str]) -> int:
    """Return the set of *names* as the kernel writes it: bit n for capability n.

    Raises:
        ValueError: A name is not in `CAPABILITIES`.
    """
    return sum({1 << CAPABILITIES.index(name) for name in names})


def describe_capability_mask(mask: int) -> tuple[str, ...]:
    """Return the names in *mask*; a capability newer than our table is `cap_` and its number."""
    return tuple(
        CAPABILITIES[number] if number < len(CAPABILITIES) else f"cap_{number}"
        for number in range(mask.bit_length())
        if mask >> number & 1
    )


def set_parent_death_signal(signal_number: int) -> None:
    """Have the kernel send *signal_number* to this process when the parent *thread* ends.

    Does not tell whether the parent is dead already: compare `os.getppid()` afterwards with the
    pid it had before the fork. The kernel forgets the wish at every change of the effective user
    or group, and in every child: so it comes after the drop of privileges, in each process anew.

    Source: PR_SET_PDEATHSIG(2const).
    """
    _prctl(_SET_PDEATHSIG, signal_number)


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process instead of PID 1's.

    Children do not inherit it. Does not reap anything.

    Source: PR_SET_CHILD_SUBREAPER(2const).
    """
    _prctl(_SET_CHILD_SUBREAPER, 1)


def read_subreaper() -> bool:
    """Tell whether this process is a subreaper."""
    import ctypes  # noqa: PLC0415 - see the top of this module

    answer = ctypes.c_int()
    _prctl(_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer.value)


def set_no_new_privileges() -> None:
    """Forbid, for good and for all descendants, that an execve(2) gives privileges.

    Set-user-id programs and file capabilities then grant nothing. Takes nothing away that the
    process has.

    Source: PR_SET_NO_NEW_PRIVS(2const).
    """
    _prctl(_SET_NO_NEW_PRIVS, 1)


def read_no_new_privileges() -> bool:
    """Tell whether `set_no_new_privileges` has been done here or in an ancestor."""
    return bool(_prctl(_GET_NO_NEW_PRIVS))


def set_dumpable(*, dumpable: bool) -> None:
    """Allow or forbid core dumps of, and ptrace(2) into, this process by its own user.

    Forbidding also gives the files in `/proc/PID` to root. An execve(2) allows it again.

    Source: PR_SET_DUMPABLE(2const), proc(5).
    """
    _prctl(_SET_DUMPABLE, int(dumpable))


def read_dumpable() -> bool:
    """Tell whether this process is dumpable; after a change of user it is not."""
    return _prctl(_GET_DUMPABLE) == 1


def set_keep_capabilities(*, keep: bool) -> None:
    """Have the permitted capabilities survive, or not, a change of all user ids from 0.

    The effective and ambient ones are cleared by such a change in any case. Cleared by execve(2).

    Source: PR_SET_KEEPCAPS(2const), capabilities(7).
    """
    _prctl(_SET_KEEPCAPS, int(keep))


def read_capabilities() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable capabilities as masks.

    Source: capget(2).
    """
    header, data = _capability_structures()
    _call("capget", header, data)
    return data[0] | data[3] << 32, data[1] | data[4] << 32, data[2] | data[5] << 32


def write_capabilities(*, effective: int, permitted: int, inheritable: int) -> None:
    """Make the three sets exactly these masks.

    Does not touch the bounding set; takes from the ambient set what is no longer both permitted
    and inheritable.

    Source: capset(2).
    """
    header, data = _capability_structures()
    low = 0xFFFFFFFF
    data[0], data[1], data[2] = effective & low, permitted & low, inheritable & low
    data[3], data[4], data[5] = effective >> 32, permitted >> 32, inheritable >> 32
    _call("capset", header, data)


def read_bounding_set() -> int:
    """Return the capabilities that an execve(2) could still give, as a mask.

    Source: PR_CAPBSET_READ(2const).
    """
    mask = 0
    for number in range(64):  # the width of the kernel's sets
        try:
            mask |= _prctl(_CAPBSET_READ, number) << number
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            break  # the first number that this kernel does not know
    return mask


def drop_from_bounding_set(mask: int) -> None:
    """Take the capabilities in *mask* out of the bounding set, for good.

    Needs CAP_SETPCAP, effective.

    Source: PR_CAPBSET_DROP(2const).
    """
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            _prctl(_CAPBSET_DROP, number)


def replace_ambient_set(mask: int) -> None:
    """Make *mask* the ambient set: what an ordinary program that is executed gets.

    Each of them must be permitted and inheritable already.

    Source: PR_CAP_AMBIENT(2const), since Linux 4.3.
    """
    _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for number in range(mask.bit_length()):
        if mask >> number & 1:
            _prctl(_CAP_AMBIENT, _AMBIENT_RAISE, number)


def set_process_name(name: str) -> None:
    """Make *name* what ps(1) and top(1) show, cut to its first 15 bytes.

    Does not change the arguments that `ps -f` shows. Goes through /proc, which spares ctypes.

    Source: proc_pid_comm(5).
    """
    _require_linux()
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, os.fsencode(name)[:_LONGEST_NAME])
    finally:
        os.close(fd)


def _require_linux() -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"only Linux has this, not {sys.platform}")


def _prctl(option: int, *arguments: int) -> int:
    _require_linux()
    import ctypes  # noqa: PLC0415 - see the top of this module

    # All five, as unsigned long: the kernel checks that the unused ones are 0, and a C int in a
    # variadic call leaves the upper half of its register undefined.
    words = [ctypes.c_ulong(word) for word in (*arguments, 0, 0, 0, 0)[:4]]
    return _call("prctl", ctypes.c_int(option), *words)


def _call(name: str, *arguments: Any) -> int:
    """Call libc's *name* and turn -1 into the OSError that errno stands for."""
    import ctypes  # noqa: PLC0415 - see the top of this module

    result: int = getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _capability_structures() -> tuple[Any, Any]:
    """Return what capget(2) and capset(2) take: the header, and twice (effective, permitted, …)."""
    _require_linux()
    import ctypes  # noqa: PLC0415 - see the top of this module

    return (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
