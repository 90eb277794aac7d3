"""What the guard says: hazards, where they come from, and what they mean for a fork, as values.

Nothing here looks at the process. The module is loaded only when there is something to say: a fork
that is fine never needs it.
"""

from __future__ import annotations

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    Certainty = Literal["fatal", "danger", "notice"]


class Origin(Value):
    """Where a hazard was made.

    Attributes:
        file: The file of the person's own line, or of the library where there is no such line.
        line: Its number, from 1.
        module: The module that was being imported there, or "" for an ordinary call.
        call: The name of what was called there, or "" for an import.
    """

    file: str
    line: int
    module: str = ""
    call: str = ""

    def describe(self) -> str:
        """Return "importing obstore (legacy.py:12)" or "get_event_loop() at legacy.py:31"."""
        place = f"{self.file.rpartition('/')[2]}:{self.line}"
        return f"importing {self.module} ({place})" if self.module else f"{self.call}() at {place}"


class Hazard(Value):
    """One fact of this process that matters to a fork.

    Attributes:
        kind: One of `forkfirst.guard.kinds.KINDS`, by name: what an allow-list and a document
            refer to.
        certainty: "fatal" is always refused, "danger" is refused unless it is allowed by name,
            "notice" is only told.
        subject: What was seen, to be read by a person.
        detail: What it belongs to, or "".
        name: What can be allowed singly, as `kind:name` (a thread's name, a path), or "".
        things: What can be counted and compared between two looks: "tid 71", "fd 7", "pid 12".
        origin: Who made it, where that is known.
        consequence: What a forked child would do.
        remedy: What to change.
    """

    kind: str
    certainty: Certainty
    subject: str
    detail: str = ""
    name: str = ""
    things: tuple[str, ...] = ()
    origin: Origin | None = None
    consequence: str = ""
    remedy: str = ""

    @property
    def refuses(self) -> bool:
        """Whether a fork is refused for this, as long as nobody allowed it."""
        return self.certainty != "notice"

    def describe(self) -> str:
        """Return one line without indentation: what was seen, and where it comes from."""
        return "   ".join(part for part in (self.subject, describe_source(self)) if part)


class Verdict(Value):
    """What the hazards of a process mean for a fork that would happen now.

    Attributes:
        hazards: All that was found.
        refusing: Those for which a fork must not happen.
        allowed: Those that would refuse but were allowed, each with the reason given.
    """

    hazards: tuple[Hazard, ...] = ()
    refusing: tuple[Hazard, ...] = ()
    allowed: tuple[tuple[Hazard, str], ...] = ()

    @property
    def safe(self) -> bool:
        """Whether a fork may happen."""
        return not self.refusing

    @property
    def notices(self) -> tuple[Hazard, ...]:
        """Those that are only told."""
        return tuple(hazard for hazard in self.hazards if not hazard.refuses)


def weigh(hazards: Iterable[Hazard], allowed: Mapping[str, str]) -> Verdict:
    """Return the verdict on *hazards*, where *allowed* maps `kind` or `kind:name` to a reason.

    A fatal hazard cannot be allowed: it stays among the refusing ones.
    """
    found = tuple(hazards)
    refusing = []
    excused = []
    for hazard in found:
        reason = allowed.get(f"{hazard.kind}:{hazard.name}") or allowed.get(hazard.kind)
        if hazard.certainty == "danger" and reason:
            excused.append((hazard, reason))
        elif hazard.refuses:
            refusing.append(hazard)
    return Verdict(hazards=found, refusing=tuple(refusing), allowed=tuple(excused))


def describe_source(hazard: Hazard) -> str:
    """Return what a hazard belongs to and who made it, or "" where neither is known."""
    if hazard.origin is None:
        return hazard.detail
    text = hazard.origin.describe()
    if hazard.kind == "idle-loop" and hazard.origin.call:
        return f"{hazard.detail}: {text}"
    verb = "started" if "thread" in hazard.kind or "process" in hazard.kind else "made"
    made = f"{verb} while {text}" if hazard.origin.module else f"{verb} by {text}"
    return f"{hazard.detail}, {made}" if hazard.detail else made


_SPAWN = "start with --spawn (a fresh interpreter instead of a fork)"


def describe_hazards(hazards: Iterable[Hazard], *, service: str = "", instead: str = _SPAWN) -> str:
    """Return the refusal that a person reads: the facts, the consequences, what to do.

    The first line has no capital and no full stop, like every message of forkfirst; the others are
    indented by two spaces. Equal consequences and remedies are told once. *instead* is what helps
    where nothing can be changed.
    """
    found = tuple(hazards)
    what = f'cannot fork "{service}"' if service else "cannot fork"
    width = max((len(hazard.subject) for hazard in found), default=0)
    lines = [f"{what}: {_reason(found)}"]
    lines += [f"  {each.subject:<{width}}   {describe_source(each)}".rstrip() for each in found]
    consequences = dict.fromkeys(hazard.consequence for hazard in found if hazard.consequence)
    lines += [f"  {text}" for text in consequences]
    remedies = dict.fromkeys(hazard.remedy for hazard in found if hazard.remedy)
    if remedies:
        lines.append(f"  do: {'; '.join(remedies)}, or {instead}")
    return "\n".join(lines)


_RUNTIME = frozenset({"running-loop", "idle-loop", "epoll", "io-uring", "runtime-threads"})
_THREADS = frozenset({"native-threads", "python-threads", "executor-threads", "watchdog-thread"})


def _reason(hazards: tuple[Hazard, ...]) -> str:
    kinds = {hazard.kind for hazard in hazards}
    if kinds & _RUNTIME:
        return "a runtime is alive in this process"
    if kinds & _THREADS:
        return "other threads are alive in this process"
    return "this process holds what a fork would break"
