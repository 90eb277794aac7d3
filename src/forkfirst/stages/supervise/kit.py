"""What the workers of one generation have in common: their plan, and their listeners."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from forkfirst.plan.plan import Plan


class Kit:
    """A plan, and the descriptors of the listeners that it declares, in its order.

    Attributes:
        plan: What each worker does.
        listeners: Name and descriptor of each.
        described: Name and address of each, once a worker has told it; to look at a socket needs
            modules that this process would keep for ever.
        runtime: Who runs the program, once a worker has told it.
        fell_back: Why its workers are not forked from a template, though that was asked for; or "".
        template_due: From when on, on the clock, a template that dies is made again unasked.
    """

    def __init__(self, plan: Plan, listeners: Iterable[tuple[str, int]]) -> None:
        self.plan = plan
        self.listeners = tuple(listeners)
        self.described: list[tuple[str, str]] = []
        self.runtime = plan.service.runtime
        self.fell_back = ""
        self.template_due = 0.0

    @property
    def is_preloaded(self) -> bool:
        """Whether its workers are forked from a template."""
        return bool(self.plan.template) and not self.fell_back

    @property
    def addresses(self) -> dict[str, tuple[int, ...]]:
        """The descriptors of each listener that was declared, by the text that declares it.

        What a manager has passed may be several of one name, or not declared at all.
        """
        declared = self.plan.service.listeners
        if len(declared) == len(self.listeners):
            pairs = zip(declared, self.listeners, strict=True)
            return {str(one): (fd,) for one, (_, fd) in pairs}
        return {
            str(one): tuple(fd for name, fd in self.listeners if name == one.name)
            for one in declared
        }

    @property
    def paths(self) -> set[str]:
        """The paths of its unix sockets."""
        return {one.path for one in self.plan.service.listeners if one.path}

    def close_unless_used(self, others: Iterable[Kit]) -> set[str]:
        """Close the listeners that nobody else has; return the paths of which nobody else has one.

        Never shutdown(2): a worker that still drains has the same socket.
        """
        others = tuple(others)
        used = {fd for other in others for _, fd in other.listeners}
        for fd in {fd for _, fd in self.listeners} - used:
            os.close(fd)
        return self.paths.difference(*(other.paths for other in others))
