"""Open descriptors that a fork would share in a way that breaks one side.

A descriptor is only looked at by name and by /proc; nothing is read from it or changed.
"""

from __future__ import annotations

import os
import sys

from forkfirst.guard.glance import count_record_locks, read_whole
from forkfirst.guard.hazard import Hazard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Prefixes of the names under /dev behind which a driver keeps state for one process.
DEVICE_PREFIXES = {
    "/dev/nvidia": "CUDA",
    "/dev/kfd": "ROCm",
    "/dev/dri/": "a GPU",
    "/dev/infiniband/": "RDMA",
    "/dev/accel": "an accelerator",
    "/dev/neuron": "an accelerator",
    "/dev/vfio/": "a device driver in user space",
}
_EVENT_LINKS = (
    "[eventfd]",
    "[timerfd]",
    "[signalfd]",
    "inotify",
    "[pidfd]",
    "[fanotify]",
    "[userfaultfd]",
)


def find_descriptor_hazards(*, thorough: bool, owned: Mapping[int, str]) -> list[Hazard]:
    """Return the hazards among the open descriptors and record locks of this process.

    Args:
        thorough: Also tell of event descriptors and connected sockets.
        owned: Epoll descriptors that are accounted for elsewhere, with their owner.
    """
    links = dict(read_links())
    found = []
    for descriptor, link in links.items():
        if link == "anon_inode:[eventpoll]":
            found += _judge_epoll(descriptor, owned.get(descriptor, ""))
        elif link == "anon_inode:[io_uring]" and not _are_of_unused_loops(links):
            found.append(_io_uring(descriptor))
        elif link.startswith("/dev/"):
            found += _judge_device(descriptor, link)
    found += _find_record_locks(links)
    if thorough:
        found += _find_events(links)
        found += _find_connections(links)
    return found


def read_links() -> Iterator[tuple[int, str]]:
    """Yield each open descriptor with what /proc says it is open on; nothing without a /proc."""
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return
    for name in names:
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # closed by another thread, or the descriptor of the listing itself


def count_registrations(descriptor: int) -> int:
    """Return how many descriptors an epoll watches; 0 if that cannot be read.

    Source: proc_pid_fdinfo(5), the lines that begin with "tfd:".
    """
    return read_whole(f"/proc/self/fdinfo/{descriptor}").count(b"\ntfd:")


def _judge_epoll(descriptor: int, owner: str) -> list[Hazard]:
    if owner in {"asyncio", "twisted"}:
        return []  # told by `loops`
    count = count_registrations(descriptor)
    if count == 0:
        return []  # a uvloop that never ran, or one that was emptied: nothing to share
    plural = "" if count == 1 else "s"
    subject = f"1 epoll descriptor with {count} registration{plural} (fd {descriptor})"
    if owner == "gevent":
        return [
            Hazard(
                kind="self-healing",
                certainty="notice",
                subject=subject,
                detail="gevent's hub, which makes itself a new one in a child",
                name="gevent",
                things=(f"fd {descriptor}",),
            )
        ]
    return [
        Hazard(
            kind="epoll",
            certainty="danger",
            subject=subject,
            detail="an event loop or a selector that is not closed",
            name=f"fd {descriptor}",
            things=(f"fd {descriptor}",),
            consequence="a forked child would hang in epoll_wait, or take its parent's events:"
            " both processes would share one epoll",
            remedy="create the loop inside main()",
        )
    ]


def _are_of_unused_loops(links: Mapping[int, str]) -> bool:
    """Return whether the rings belong to uvloops that never ran: libuv makes one with each epoll.

    Such a loop has registered nothing, neither with the epoll nor with the ring, and survives.
    """
    if "uvloop" not in sys.modules:
        return False
    rings = [link for link in links.values() if link == "anon_inode:[io_uring]"]
    empty = [
        descriptor
        for descriptor, link in links.items()
        if link == "anon_inode:[eventpoll]" and count_registrations(descriptor) == 0
    ]
    return len(rings) <= len(empty)


def _io_uring(descriptor: int) -> Hazard:
    return Hazard(
        kind="io-uring",
        certainty="danger",
        subject=f"1 io_uring (fd {descriptor})",
        detail="its rings are memory that a child would share with its parent",
        name=f"fd {descriptor}",
        things=(f"fd {descriptor}",),
        consequence="a forked child would take completions that its parent waits for",
        remedy="set the ring up inside main()",
    )


def _judge_device(descriptor: int, link: str) -> list[Hazard]:
    for prefix, what in DEVICE_PREFIXES.items():
        if link.startswith(prefix):
            return [
                Hazard(
                    kind="device",
                    certainty="danger",
                    subject=f"{link} is open (fd {descriptor})",
                    detail=f"{what} was initialised in this process",
                    name=link,
                    things=(f"fd {descriptor}",),
                    consequence=f"{what} cannot be used in a forked child: its driver knows only"
                    " the process that opened it",
                    remedy="initialise the device inside main()",
                )
            ]
    return []


def _find_record_locks(links: Mapping[int, str]) -> list[Hazard]:
    held = {
        descriptor: link
        for descriptor, link in links.items()
        if link.startswith("/") and count_record_locks(descriptor)
    }
    if not held:
        return []
    count = sum(map(count_record_locks, held))
    files = tuple(dict.fromkeys(held.values()))
    return [
        Hazard(
            kind="record-lock",
            certainty="danger",
            subject=f"{count} POSIX record lock{'' if count == 1 else 's'}",
            detail=", ".join(files),
            name=files[0],
            things=tuple(f"record lock {file}" for file in files),
            consequence="a forked child would not have the lock, and a second instance could start",
            remedy="take the lock in the child, or use flock(2), which a child keeps",
        )
    ]


def _find_events(links: Mapping[int, str]) -> list[Hazard]:
    found = []
    for descriptor, link in links.items():
        name = link.removeprefix("anon_inode:")
        if name != link and name in _EVENT_LINKS:
            plain = name.strip("[]")
            found.append(
                Hazard(
                    kind="event-descriptor",
                    certainty="notice",
                    subject=f"1 {plain} (fd {descriptor})",
                    detail="whoever reads it first, parent or child, takes the event",
                    name=plain,
                    things=(f"fd {descriptor}",),
                )
            )
    return found


def _find_connections(links: Mapping[int, str]) -> list[Hazard]:
    """Find connected sockets; whether one carries TLS cannot be seen without walking the heap."""
    import socket  # noqa: PLC0415 - only for a thorough look

    found = []
    for descriptor, link in links.items():
        if not link.startswith("socket:"):
            continue
        try:
            probe = socket.socket(fileno=os.dup(descriptor))
        except OSError:
            continue
        with probe:
            try:
                peer = probe.getpeername()
            except OSError:
                continue  # listening, or not connected
            if probe.family == socket.AF_UNIX and not peer:
                continue  # one end of a pair: a loop's self-pipe, or a channel meant to be shared
        found.append(
            Hazard(
                kind="connected-socket",
                certainty="notice",
                subject=f"1 connection to {_name_peer(peer)} (fd {descriptor})",
                detail="if both processes use it, each gets the other's answers; TLS breaks",
                name=_name_peer(peer),
                things=(f"fd {descriptor}",),
            )
        )
    return found


def _name_peer(peer: object) -> str:
    if isinstance(peer, tuple):
        host, port = str(peer[0]), peer[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return peer.decode(errors="replace") if isinstance(peer, bytes) else str(peer)
