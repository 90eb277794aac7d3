"""Service and host to plan. The order of the steps stands here, and nowhere else."""

from __future__ import annotations

from forkfirst.plan import steps
from forkfirst.plan.first import FIRST_STEPS, LEADER_STEPS, early_module, plan_early
from forkfirst.plan.places import Places, find_places
from forkfirst.plan.service import Declaration, check_service
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host
    from forkfirst.plan.steps import Step

DAEMON = "daemon"
"""Detached: a launcher, a session leader, a service."""

FOREGROUND = "foreground"
"""In the process that the command started, under whoever supervises it."""

FIRST_PROCESS = "first process"
"""As pid 1: one fork, so that a process without a runtime reaps and forwards signals."""


class Plan(Value):
    """What a start will do: each step in the process that takes it, in order.

    Attributes:
        mode: `DAEMON`, `FOREGROUND` or `FIRST_PROCESS`.
        service: What was declared.
        places: Where its files are.
        first: Steps of the process that the command started, until it has forked.
        leader: Steps of the first child, the session leader.
        early: Steps of the service while it waits for its plan.
        launcher: Steps of the process that the command started, after the fork if there is one.
        worker: Steps of the process that runs the program.
        last: Steps of the launcher when all the others are done.
    """

    mode: str
    service: Declaration
    places: Places
    first: tuple[Step, ...]
    leader: tuple[Step, ...]
    early: tuple[Step, ...]
    launcher: tuple[Step, ...]
    worker: tuple[Step, ...]
    last: tuple[Step, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in the order in which they are taken."""
        return (
            *self.first,
            *self.leader,
            *self.early,
            *self.launcher,
            *self.worker,
            *self.last,
        )


def make_plan(service: Declaration, host: Host, *, foreground: bool = False) -> Plan:
    """Decide every step of starting *service* on *host*.

    Raises:
        ConfigError: The service cannot run as it is declared.
    """
    check_service(service)
    places = find_places(service.name, host, pid_file=service.pid_file, log=service.log)
    mode = DAEMON
    if host.pid == 1:
        mode = FIRST_PROCESS
    elif foreground:
        mode = FOREGROUND
    return Plan(
        mode=mode,
        service=service,
        places=places,
        first=FIRST_STEPS if mode == DAEMON else (),
        leader=LEADER_STEPS if mode == DAEMON else (),
        early=plan_early(early_module(service.target, service.runtime)) if mode == DAEMON else (),
        launcher=_launcher_steps(service, places, mode),
        worker=_worker_steps(service, host, places, mode),
        last=(steps.AwaitReady(seconds=service.ready_seconds),) if mode == DAEMON else (),
    )


def _launcher_steps(service: Declaration, places: Places, mode: str) -> tuple[Step, ...]:
    chosen: list[Step] = [] if mode == DAEMON else [steps.HoldStandardDescriptors()]
    if service.command:
        chosen.append(steps.CheckCommand(command=service.command[0]))
    else:
        chosen.append(steps.CheckTarget(target=service.target, directory=service.source_directory))
    chosen.append(steps.MakeDirectory(path=places.run_directory, mode=0o700, private=True))
    # The lock comes before anything that a second starter could disturb.
    chosen.append(steps.LockPidFile(path=places.pid_file))
    if mode == DAEMON or service.log:
        if places.log_directory != places.run_directory:
            chosen.append(steps.MakeDirectory(path=places.log_directory, mode=0o755, private=False))
        chosen.append(steps.OpenLog(path=places.log))
    chosen.extend(steps.OpenListener(listener=listener) for listener in service.listeners)
    chosen.append(steps.OpenControlSocket(path=places.control_socket))
    chosen.append(steps.KeepRecord(path=places.record))
    if mode == DAEMON:
        chosen.append(steps.HandOver())
    if mode == FIRST_PROCESS:
        chosen.extend((steps.JudgeFork(), steps.Fork()))
    return tuple(chosen)


def _worker_steps(service: Declaration, host: Host, places: Places, mode: str) -> tuple[Step, ...]:
    chosen: list[Step] = []
    if mode == DAEMON:
        chosen.extend((steps.ResetSignalHandlers(), steps.UnblockSignals()))
    # daemon(7), step 4. Under a manager these variables are ours, and the runtime uses them.
    chosen.append(steps.CleanEnvironment(remove=host.foreign_variables, assign=service.environment))
    chosen.append(steps.SetUmask(umask=service.umask))
    # daemon(7), step 11: "/" so that no file system is kept busy. In the foreground the supervisor
    # has chosen the directory, and a person at a terminal expects to stay where they are.
    directory = service.directory or ("/" if mode == DAEMON else "")
    if directory:
        chosen.append(steps.ChangeDirectory(path=directory))
    if mode == DAEMON or service.log:
        chosen.append(steps.RedirectStandardStreams(log=places.log))
    if mode == DAEMON:
        # Only here: in the foreground the supervisor may have passed descriptors on purpose.
        chosen.append(steps.CloseDescriptors())
    chosen.append(steps.WritePid(path=places.pid_file))
    chosen.append(steps.ServeControl())
    chosen.append(
        steps.RunProgram(target=service.target, command=service.command, runtime=service.runtime)
    )
    return tuple(chosen)
