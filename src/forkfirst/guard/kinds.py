"""The kinds of hazard, each with what happens, why, how it is seen, and what to do.

The reference page of the hazards is printed from these values, so it cannot tell anything else
than the guard does. Names are an interface: an allow-list in somebody's configuration uses them.
"""

from __future__ import annotations

from forkfirst.errors import ConfigError
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from forkfirst.guard.hazard import Certainty


class Kind(Value):
    """One kind of hazard.

    Attributes:
        name: What an allow-list, a test's marker and the documents call it.
        certainty: "fatal", "danger" or "notice".
        title: What it is, in a few words.
        happens: What a forked child does, or what becomes of its parent.
        why: The reason.
        seen: How the guard sees it, and about what that costs.
        missed: What it does not see.
        remedy: What to do.
    """

    name: str
    certainty: Certainty
    title: str
    happens: str
    why: str
    seen: str
    missed: str = ""
    remedy: str = ""


KINDS: tuple[Kind, ...] = (
    Kind(
        name="running-loop",
        certainty="fatal",
        title="an event loop is running in this thread",
        happens="The child hangs in epoll_wait, or leaves politely and takes the parent's server"
        " with it: it stays up, idle, and answers nobody.",
        why="The child has a copy of the loop and shares its epoll and its self-pipe. What one of"
        " the two unregisters or reads is gone for the other.",
        seen="asyncio's and uvloop's running loop, trio's run, Twisted's reactor, and whatever"
        " sniffio is told of; 0.1 µs.",
        missed="A loop in another thread is seen as that thread.",
        remedy="Fork before the loop is started, and run it in the child.",
    ),
    Kind(
        name="idle-loop",
        certainty="fatal",
        title="an event loop was created and not closed",
        happens="The child waits in epoll_wait for ever.",
        why="When the parent leaves, its clean-up closes the loop, and closing takes the self-pipe"
        " out of the epoll that both share. If the parent leaves by os._exit() the child works, on"
        " Linux, by luck: a kqueue is not inherited at all.",
        seen="The current loop of this thread; Twisted's reactor; under watch, every loop.",
        missed="Without a watch, a loop in a variable is told as `epoll`. The current loop is read"
        " from a private name; where that is gone, it is told as `epoll`, too.",
        remedy="Create the loop inside main().",
    ),
    Kind(
        name="epoll",
        certainty="danger",
        title="an epoll with registrations",
        happens="As with a loop: the child waits for what its parent has unregistered, or is told"
        " of descriptors that it has closed.",
        why="Registrations belong to the open file, which both processes share, and not to the"
        " process.",
        seen="The flags and the type of each descriptor, at most 1.5 µs each; then the"
        " registrations in /proc/self/fdinfo.",
        missed="Loops that use select(2) or poll(2), which keep their list in memory; an epoll that"
        " was made non-blocking, which nobody does.",
        remedy="Close it before the fork, or create it inside main(). A process that forks for"
        " ever and needs a selector can use poll(2).",
    ),
    Kind(
        name="io-uring",
        certainty="danger",
        title="an io_uring",
        happens="The child waits for a completion that its parent took.",
        why="The rings are memory that both processes share.",
        seen="The name of the descriptor.",
        missed="The ring of a uvloop that never ran is known to be empty and is not told.",
        remedy="Set the ring up inside main().",
    ),
    Kind(
        name="runtime-threads",
        certainty="fatal",
        title="threads of a native runtime: Tokio, Rayon, gRPC, libuv, OpenMP and others",
        happens="The child hangs at its first use of the library.",
        why="The library believes that its workers are running; in the child there are none.",
        seen="The kernel's count of threads, 1.2 µs. What they are is read from their names and"
        " from the return addresses on their stacks, about 150 µs a thread, only if there are any.",
        missed="A runtime that has started no thread yet, which is safe.",
        remedy="Use the library for the first time inside main(). An import alone starts none of"
        " the known ones.",
    ),
    Kind(
        name="native-threads",
        certainty="danger",
        title="threads of a native library that is not known",
        happens="The child hangs when it needs what they do, or a lock that they held.",
        why="Only the thread that forks exists in the child.",
        seen="As above.",
        remedy="Use the library for the first time inside main().",
    ),
    Kind(
        name="python-threads",
        certainty="danger",
        title="other Python threads",
        happens="The child hangs at the first lock that one of them held, or waits for an answer"
        " that nobody will give.",
        why="Locks are copied as they are, queues as they are; the threads are not copied.",
        seen="The kernel's count of threads.",
        missed="Which locks they hold: that cannot be known before somebody waits for one.",
        remedy="Start the threads inside main().",
    ),
    Kind(
        name="executor-threads",
        certainty="danger",
        title="a ThreadPoolExecutor with workers",
        happens="The first task that the child submits is never run.",
        why="The pool counts an idle worker that is not there.",
        seen="The kernel's count of threads; their names are those of the pool.",
        missed="A pool that has not been used yet, which is safe.",
        remedy="Use the pool in a `with`, or make it inside main().",
    ),
    Kind(
        name="watchdog-thread",
        certainty="fatal",
        title="the watchdog of faulthandler.dump_traceback_later()",
        happens="The child never exits, even if all it does is exit.",
        why="At its end the interpreter waits for the watchdog's thread, which the child has not.",
        seen="A thread that only the interpreter's own code is in, and that it has no state for.",
        remedy="Call faulthandler.cancel_dump_traceback_later() before the fork.",
    ),
    Kind(
        name="main-thread",
        certainty="danger",
        title="the fork would happen in another thread than the main one",
        happens="The child has none of what the main thread holds; a child forked by"
        " asyncio.to_thread() waits for ever.",
        why="In the child the forking thread is the only one, and becomes the main one.",
        seen="The kernel's count of threads, and who asks.",
        remedy="Fork in the main thread, before any other is started.",
    ),
    Kind(
        name="held-lock",
        certainty="fatal",
        title="an interpreter-wide lock is held by another thread",
        happens="os.fork() itself waits, in the parent; or the child waits at its next import of"
        " that module.",
        why="At-fork hooks take logging's and the executors' locks first. Import locks of single"
        " modules are copied as they are.",
        seen="By trying the locks, only if there are other threads.",
        missed="Hooks of other libraries: nobody can list them.",
        remedy="Wait until the other thread is done.",
    ),
    Kind(
        name="subinterpreter",
        certainty="fatal",
        title="a subinterpreter, even an idle one without a thread",
        happens="os.fork() does not return in the child, or kills it.",
        why="CPython ends the other interpreters in the child without having their locks.",
        seen="The list of interpreters, if a module for them is loaded; 0.3 µs.",
        missed="One made by a program in C that embeds Python.",
        remedy="Make subinterpreters inside main().",
    ),
    Kind(
        name="worker-processes",
        certainty="danger",
        title="running multiprocessing workers",
        happens="A child that leaves by sys.exit() terminates its parent's daemonic workers, and"
        " can join none.",
        why="The clean-up at exit believes that the workers are this process's own.",
        seen="multiprocessing's own set of children; 0.1 µs.",
        missed="It is a private name; where it is gone, they are told as `child-process`.",
        remedy="Start the workers inside main().",
    ),
    Kind(
        name="record-lock",
        certainty="danger",
        title="a POSIX record lock: lockf(), SQLite in a transaction",
        happens="The child does not have the lock; a second instance starts, or another process"
        " writes to the database.",
        why="These locks belong to a process, and fork(2) makes another one.",
        seen="/proc/self/fdinfo, 8 µs for each file that is open for writing.",
        missed="A shared lock through a file that is open for reading only.",
        remedy="Take the lock in the child, or use flock(2), which a child keeps.",
    ),
    Kind(
        name="device",
        certainty="danger",
        title="a device that knows one process: CUDA, ROCm, RDMA, VFIO",
        happens="The library fails or hangs in the child.",
        why="The driver keeps the state of the process that opened the device.",
        seen="The path of each descriptor that is an unusual device.",
        missed="Devices with other names.",
        remedy="Initialise the device inside main().",
    ),
    Kind(
        name="self-healing",
        certainty="notice",
        title="threads and hubs that are known to survive",
        happens="Nothing: OpenBLAS stops its pool before a fork and starts it when it is needed;"
        " trio forgets its idle workers; OpenTelemetry, jemalloc and gevent start anew.",
        why="Their authors thought of fork(2).",
        seen="By what they are: the code on the thread's stack, the object that the thread runs.",
    ),
    Kind(
        name="helper-process",
        certainty="notice",
        title="multiprocessing's resource tracker or fork server",
        happens="The tracker lives as long as the child holds its pipe; the fork server cannot be"
        " used by the child.",
        why="Both were made for the parent.",
        seen="multiprocessing's own record, on a check only.",
        remedy="Let the child make its own: set the start method inside main().",
    ),
    Kind(
        name="child-process",
        certainty="notice",
        title="other child processes",
        happens="The child can neither wait for them nor reap them.",
        why="They are its siblings.",
        seen="/proc, on a check only.",
        missed="A kernel without CONFIG_PROC_CHILDREN does not tell.",
    ),
    Kind(
        name="event-descriptor",
        certainty="notice",
        title="an eventfd, timerfd, signalfd, inotify, pidfd, fanotify or userfaultfd",
        happens="Whoever reads first takes the event.",
        why="The descriptor is shared.",
        seen="The name of the descriptor, on a check only.",
        remedy="Close it in one of the two.",
    ),
    Kind(
        name="connected-socket",
        certainty="notice",
        title="a connection: HTTP keep-alive, a database, TLS",
        happens="If both use it, each gets answers to the other's questions; over TLS both encrypt"
        " with the same key and number, and the peer hangs up.",
        why="Bytes go to whoever reads them.",
        seen="getpeername(2) of each socket, on a check only.",
        missed="Whether it is encrypted.",
        remedy="Connect inside main(), or let one of the two close it at once.",
    ),
    Kind(
        name="timer",
        certainty="notice",
        title="an interval timer",
        happens="It does not fire in the child.",
        why="fork(2) clears timers.",
        seen="getitimer(2), on a check only.",
        missed="Timers of timer_create(2).",
        remedy="Set it in the child.",
    ),
    Kind(
        name="temporary-directory",
        certainty="notice",
        title="a live tempfile.TemporaryDirectory",
        happens="Whichever process leaves by sys.exit() first deletes it under the other.",
        why="The clean-up is in both.",
        seen="weakref's registry, on a check only.",
        remedy="Create it inside main(); let the launcher leave by os._exit(), as forkfirst does.",
    ),
)

UNSEEN: tuple[tuple[str, str], ...] = (
    (
        "output that is not flushed",
        (
            "It is written twice. forkfirst flushes the standard streams before it forks; other"
            " files are the program's."
        ),
    ),
    (
        "clean-ups at exit (atexit, weakref.finalize)",
        "They run in both. forkfirst's launcher leaves by os._exit().",
    ),
    (
        "random.Random and numpy generators of the program's own",
        "Every child draws the same numbers. The random module's own generator is seeded anew.",
    ),
    (
        "a signal wakeup descriptor set by hand",
        "A signal to the child wakes the parent. It cannot be read without being changed.",
    ),
    ("idle database connections", "They hold no lock, and look like any open file."),
    (
        "which locks other threads hold",
        "That there are threads is seen, and enough to refuse.",
    ),
    ("TLS sessions", "A connection is seen, not what is spoken on it."),
    (
        "forks made by a library in C",
        "The tripwire hears of os.fork() and os.forkpty() only.",
    ),
)


def check_allowed(names: Iterable[str]) -> None:
    """Return if each of *names* (`kind` or `kind:name`) is a danger that may be allowed.

    Raises:
        ConfigError: There is no such kind, or it is fatal, or never refused anyway.
    """
    kinds = {kind.name: kind for kind in KINDS}
    for name in names:
        kind = kinds.get(name.partition(":")[0])
        if kind is None:
            message = f"cannot allow {name!r}: there is no such hazard"
            raise ConfigError(message, hint=f"one of {', '.join(kinds)}")
        if kind.certainty != "danger":
            message = f"cannot allow {name!r}: a {kind.certainty} is "
            message += "always refused" if kind.certainty == "fatal" else "never refused"
            raise ConfigError(message)


def describe_kinds() -> str:
    """Return the reference page of the hazards, in Markdown."""
    parts = [_HEAD]
    for certainty, meaning in _CERTAINTIES:
        parts.append(f"## {certainty.capitalize()}\n\n{meaning}\n")
        parts += [_describe_kind(kind) for kind in KINDS if kind.certainty == certainty]
    parts.append("## What cannot be seen from inside\n")
    parts.append("\n".join(f"- **{what}.** {then}" for what, then in UNSEEN) + "\n")
    return "\n".join(parts)


_HEAD = """# Hazards

What makes a fork unsafe, as the guard sees it. This page is printed from the guard's own values.
"""
_CERTAINTIES = (
    ("fatal", "The fork is refused. There is no way to allow it: the child was seen to break."),
    (
        "danger",
        (
            "The fork is refused, unless the hazard is allowed by its name, with a reason. `kind`"
            " allows all of a kind, `kind:name` a single one, by the name that the refusal shows."
        ),
    ),
    ("notice", "The fork is not refused. Told by a check, so that somebody can think about it."),
)


def _describe_kind(kind: Kind) -> str:
    lines = [f"### `{kind.name}`", "", f"{kind.title[0].upper()}{kind.title[1:]}.", ""]
    for label, text in (
        ("What happens", kind.happens),
        ("Why", kind.why),
        ("How it is seen", kind.seen),
        ("What is missed", kind.missed),
        ("What to do", kind.remedy),
    ):
        if text:
            lines.append(f"- *{label}:* {text}")
    return "\n".join([*lines, ""])
