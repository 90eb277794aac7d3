"""Whether this process may fork now.

A fork that is fine pays for one glance and for nothing else. Only if that sees something are the
modules loaded that can tell what it is, and whether it is harmless after all.
"""

from __future__ import annotations

from forkfirst.errors import UnsafeFork
from forkfirst.guard.glance import glance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forkfirst.guard.hazard import Hazard, Verdict
    from forkfirst.guard.origin import Watch

GRACE = 0.05  # seconds; an OS thread was seen 8.2 ms after its Thread.join() had returned


def find_hazards(
    *, thorough: bool = False, grace: float = GRACE, watch: Watch | None = None
) -> tuple[Hazard, ...]:
    """Return what is unsafe about a fork of this process now; empty when nothing is.

    Args:
        thorough: Also look for what is only worth a notice (connected sockets, timers, ...); costs
            some hundred microseconds more.
        grace: Seconds to wait for threads that are just ending; waited only while some are seen.
        watch: What was seen being made, to name the origins.

    Never raises for what it cannot read: that is documented as unseen instead.
    """
    if not (glance() or thorough):
        return ()
    from forkfirst.guard import (  # noqa: PLC0415 - only when there is something to say
        descriptors,
        loops,
        processes,
        threads,
    )

    found = [
        *threads.find_thread_hazards(grace=grace),
        *loops.find_loop_hazards(),
        *descriptors.find_descriptor_hazards(
            thorough=thorough, owned=loops.look_up_owned_descriptors()
        ),
        *processes.find_process_hazards(thorough=thorough),
    ]
    if not thorough:
        found = [hazard for hazard in found if hazard.refuses]
    return tuple(found if watch is None else watch.attribute(found))


def hazards() -> tuple[Hazard, ...]:
    """Return what would make a fork of this process unsafe now; empty if a fork is safe.

    Waits up to 0.3 s if there are other threads, which may be just ending.
    """
    return find_hazards()


def judge(
    allowed: Mapping[str, str] | None = None,
    *,
    thorough: bool = False,
    watch: Watch | None = None,
) -> Verdict:
    """Return the verdict on a fork of this process now.

    Args:
        allowed: Kinds (or `kind:name`) of danger that are known to be harmless here, each with the
            reason; a fatal hazard cannot be allowed.
        thorough: See `find_hazards`.
        watch: See `find_hazards`.
    """
    from forkfirst.guard.hazard import weigh  # noqa: PLC0415 - not needed by a fork that is fine

    return weigh(find_hazards(thorough=thorough, watch=watch), allowed or {})


def assert_fork_safe(
    allowed: Mapping[str, str] | None = None, *, service: str = "", watch: Watch | None = None
) -> None:
    """Return if this process may fork now.

    Call it in the function that forks, right before: what is true earlier proves nothing, and an
    at-fork hook cannot refuse (its exceptions are printed and ignored).

    Args:
        allowed: Kinds (or `kind:name`) of danger that are known to be harmless here, each with the
            reason; a fatal hazard cannot be allowed.
        service: The name of what is to be forked, for the message.
        watch: What was seen being made, to name the origins.

    Raises:
        UnsafeFork: A forked child would be broken; the text says by what and what to do.
    """
    found = find_hazards(watch=watch)
    if not found:
        return
    from forkfirst.guard.hazard import (  # noqa: PLC0415 - only when there is something to say
        describe_hazards,
        weigh,
    )

    refusing = weigh(found, allowed or {}).refusing
    if refusing:
        raise UnsafeFork(describe_hazards(refusing, service=service), hazards=refusing)
