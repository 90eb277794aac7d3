"""Users and groups: from the words of a command line to the numbers of the kernel.

Nothing here changes who the process is; `privileges` does.
"""

from __future__ import annotations

import os

from forkfirst import errors
from forkfirst.values import Value

# (uid_t)-1 and (gid_t)-1 mean "leave as it is" to setresuid(2) and chown(2): as an identity, that
# number would silently keep root.
_HIGHEST_ID = 2**32 - 2


class Account(Value):
    """Who a process can become.

    Attributes:
        name: The login name.
        uid: The user's number.
        gid: The user's primary group.
        home: The home directory; it need not exist.
        groups: Every group of the user, the primary one among them, sorted.
    """

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...]


def look_up_user(text: str) -> Account:
    """Return the account called *text*, or the one with that number.

    A name that looks like a number is a name first, as with chown(1). A number without an account
    is refused: nothing would say which groups are its own, and the process would keep its
    present ones.

    Raises:
        ConfigError: There is no such user.

    Source: getpwnam(3), getpwuid(3), getgrouplist(3).
    """
    import pwd  # noqa: PLC0415 - 0.3 ms, and only a service that changes its user needs it

    try:
        entry = pwd.getpwnam(text)
    except (KeyError, ValueError):  # ValueError: a NUL in the text
        try:
            entry = pwd.getpwuid(_parse_id(text))
        except (KeyError, ValueError) as cause:
            message = f'there is no user with the name or number "{text}" on this machine'
            raise errors.ConfigError(message) from cause
    groups = {entry.pw_gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)}
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        home=entry.pw_dir,
        groups=tuple(sorted(groups)),
    )


def look_up_group(text: str) -> int:
    """Return the number of the group called *text*, or *text* itself if it is a number.

    A number needs no entry in the group database: it is all that the kernel wants to know.

    Raises:
        ConfigError: There is no such group.

    Source: getgrnam(3).
    """
    import grp  # noqa: PLC0415 - as pwd above

    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        try:
            return _parse_id(text)
        except ValueError as cause:
            message = f'there is no group with the name or number "{text}" on this machine'
            raise errors.ConfigError(message) from cause


def _parse_id(text: str) -> int:
    """Return *text* as an id; ValueError where it is none."""
    digits = text.isascii() and text.isdecimal()  # int() alone would take "+1", " 1" and "1_0"
    if not digits or len(text) > len(str(_HIGHEST_ID)) or int(text) > _HIGHEST_ID:
        message = f"{text!r} is no id"
        raise ValueError(message)
    return int(text)
