"""Resource limits: from `nofile=1024:4096` to the kernel, and nothing clamped in silence."""

from __future__ import annotations

from forkfirst import errors
from forkfirst.values import Value

# The names of setrlimit(2) in lower case; which of them a machine has, it says itself.
NAMES: tuple[str, ...] = (
    *("as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc"),
    *("rss", "rtprio", "rttime", "sigpending", "stack"),
)
_FACTORS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_UNLIMITED = ("infinity", "unlimited")
# Ours: the resource module, whose own differs between systems, is not imported to parse.
INFINITY = -1


class Limit(Value):
    """One resource limit.

    Attributes:
        name: One of `NAMES`.
        soft: What is enforced; the process may raise it up to the hard one.
        hard: What only CAP_SYS_RESOURCE may raise. None leaves it as it is, in both.
    """

    name: str
    soft: int | None
    hard: int | None

    def __str__(self) -> str:
        soft, hard = (
            "" if number is None else "infinity" if number == INFINITY else str(number)
            for number in (self.soft, self.hard)
        )
        return f"{self.name}={soft}" if self.soft == self.hard else f"{self.name}={soft}:{hard}"


def parse_limit(text: str) -> Limit:
    """Return the limit that *text* means.

    It is `NAME=BOTH`, `NAME=SOFT:HARD`, `NAME=SOFT:` or `NAME=:HARD`. A number may end in K, M, G
    or T (powers of 1024); `infinity` and `unlimited` mean no limit. Units are those of
    setrlimit(2): bytes, seconds for cpu, descriptors, processes.

    Raises:
        ConfigError: *text* is not such a limit, or its soft limit is above its hard one.
    """
    name, equals, value = text.partition("=")
    if not equals or name not in NAMES:
        message = f'cannot understand the limit "{text}": it does not begin with one of the names'
        raise errors.ConfigError(message, hint=f"names are {', '.join(NAMES)}; as in nofile=1024")
    first, colon, second = value.partition(":")
    soft = _parse_number(text, first) if first or not colon else None
    hard = _parse_number(text, second) if second else None if colon else soft
    if soft is None and hard is None:
        message = f'cannot understand the limit "{text}": it has no number'
        raise errors.ConfigError(message)
    if soft is not None and hard is not None and hard != INFINITY:  # noqa: SIM102 - two thoughts
        if soft == INFINITY or soft > hard:
            message = f'cannot accept the limit "{text}": its soft limit is above its hard limit'
            raise errors.ConfigError(message)
    return Limit(name=name, soft=soft, hard=hard)


def _parse_number(text: str, part: str) -> int:
    if part in _UNLIMITED:
        return INFINITY
    factor = _FACTORS.get(part[-1:], 1)
    digits = part if factor == 1 else part[:-1]
    number = int(digits) * factor if digits.isascii() and digits.isdecimal() else -1
    if not 0 <= number < 2**63:
        message = f'cannot understand the limit "{text}": "{part}" is not a number'
        raise errors.ConfigError(message)
    return number


def set_limits(limits: tuple[Limit, ...]) -> None:
    """Apply each of *limits* to this process and what it will start, in order.

    What was set before one was refused stays set.

    Raises:
        ConfigError: This system does not have such a limit, or the present other half of the
            limit makes it impossible.
        PermissionRefusedError: A hard limit would have been raised without CAP_SYS_RESOURCE.

    Source: setrlimit(2).
    """
    import resource  # noqa: PLC0415 - a shared object of its own, and most services set no limit

    for limit in limits:
        number = getattr(resource, f"RLIMIT_{limit.name.upper()}", None)
        if number is None:
            message = f'cannot set the limit "{limit}": this system has no such limit'
            raise errors.ConfigError(message)
        soft, hard = (
            INFINITY if value == resource.RLIM_INFINITY else value
            for value in resource.getrlimit(number)
        )
        wanted_soft = soft if limit.soft is None else limit.soft
        wanted_hard = hard if limit.hard is None else limit.hard
        try:
            resource.setrlimit(
                number,
                (
                    resource.RLIM_INFINITY if wanted_soft == INFINITY else wanted_soft,
                    resource.RLIM_INFINITY if wanted_hard == INFINITY else wanted_hard,
                ),
            )
        except (ValueError, OSError) as cause:  # the module turns EPERM and EINVAL into ValueError
            now = f"it is {Limit(name=limit.name, soft=soft, hard=hard)} now"
            message = f'cannot set the limit "{limit}": {now}, and {cause}'
            if hard != INFINITY and (wanted_hard == INFINITY or wanted_hard > hard):
                raise errors.PermissionRefusedError(message) from cause
            raise errors.ConfigError(message) from cause
