"""Has the manager keep the listeners that this service opened itself, while it is not there.

What was passed to it is its sender's to keep, and what the program stores is the program's.
"""

from __future__ import annotations

from forkfirst.plan import keeping, managing
from forkfirst.stages.managed import telling
from forkfirst.stages.supervise.kit import Kit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from forkfirst.plan.listener import Listener
    from forkfirst.plan.plan import Plan
    from forkfirst.stages.managed.telling import Manager
    from forkfirst.stages.start import Start
    from forkfirst.stages.taking import Table


def keep_listeners(start: Start, plan: Plan, listeners: Iterable[tuple[str, int]]) -> None:
    """Have the manager keep *listeners*, those that *plan* declares, and no others of ours.

    To say it again changes nothing: systemd keeps each socket once. Nothing is said where nothing
    is kept.
    """
    manager = start.manager
    if manager is None or not manager.keeps:
        return
    identities = {path: (inode, device) for path, inode, device in start.paths}
    descriptors = Kit(plan, listeners).addresses
    wanted = {}
    for one in plan.service.listeners:
        fds = [fd for fd in descriptors[str(one)] if fd not in start.adopted]
        name = keeping.make_name(str(one), identities.get(one.path or ""))
        if fds and not name:
            telling.complain(f"the manager cannot keep {one}: that is too long for a name")
        elif fds:
            wanted[name] = one, fds
    _keep_only(manager, wanted)


def _keep_only(manager: Manager, wanted: dict[str, tuple[Listener, list[int]]]) -> None:
    for name in manager.kept.keys() - wanted.keys():
        del manager.kept[name]
        manager.tell(lambda notifier: notifier.remove_stored(name))  # noqa: B023 - called at once
    for name, (one, fds) in wanted.items():
        # It never hangs up, and an error on one, as datagrams have, is no reason to lose it.
        if manager.tell(lambda notifier: notifier.store(fds, name, poll=False)):  # noqa: B023 - as above
            manager.kept[name] = one.name, one.path or ""
    count = sum(len(fds) for _, fds in wanted.values())
    if count > manager.keeps:
        telling.complain(
            f"the manager keeps {manager.keeps} descriptors, and there are {count} listeners: "
            "raise FileDescriptorStoreMax="
        )


def _keep_listeners(step: managing.KeepListeners, start: Start) -> None:
    manager = start.manager
    if manager is None or not manager.follows:
        return  # it listens to another process
    manager.keeps = step.most
    # Who waits in their queues is the next start's, so nobody is accepted once we are to stop.
    start.held_outside = True
    keep_listeners(start, start.plan, start.listeners)


TABLE: Table = {managing.KeepListeners: _keep_listeners}
