"""Service and host to plan. The order of the steps stands here, and nowhere else."""

from __future__ import annotations

from forkfirst.errors import ConfigError, PermissionRefusedError
from forkfirst.plan import preparation, steps
from forkfirst.plan.first import FIRST_STEPS, LEADER_STEPS, early_module, plan_early
from forkfirst.plan.places import find_places
from forkfirst.plan.plan import Plan
from forkfirst.plan.service import check_service, is_spread
from forkfirst.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host, Identity
    from forkfirst.plan.listener import Listener
    from forkfirst.plan.places import Places
    from forkfirst.plan.service import Declaration
    from forkfirst.plan.steps import Step

DAEMON = "daemon"
"""Detached: a launcher, a session leader, a service."""

FOREGROUND = "foreground"
"""In the process that the command started, under whoever supervises it."""

FIRST_PROCESS = "first process"
"""As pid 1: one fork, so that a process without a runtime reaps and forwards signals."""


def make_plan(
    service: Declaration, host: Host, *, foreground: bool = False, spawn: bool = False
) -> Plan:
    """Decide every step of starting *service* on *host*.

    Args:
        service: What was declared.
        host: Where.
        foreground: Whether the process that the command started shall run it.
        spawn: Whether a daemon is made of fresh interpreters, and not by forks. On a host that
            does not fork well it always is.

    Raises:
        ConfigError: The service cannot run as it is declared.
    """
    check_service(service)
    if service.serve:
        from forkfirst.plan import serving  # noqa: PLC0415 - only for an application

        serving.check_listeners(service, host)
    outside = service
    if service.confined:
        host = _check_rights(service, host)
        service = _enter_root(service)
    places = find_places(service.name, host, pid_file=service.pid_file, log=service.log)
    mode = FIRST_PROCESS if host.pid == 1 else FOREGROUND if foreground else DAEMON
    if mode != DAEMON and (host.manager or service.inetd):
        # Who manages it knows who runs, and how to stop it: there is nothing to lock or to note.
        own = host.runtime_directory
        socket = f"{own}/{service.name}.sock" if own and not service.inetd else ""
        places = replace(places, pid_file="", record="", control_socket=socket)
    first, leader, early = _process_steps(service, spawn=spawn or not host.forks_well)
    template, program = _program_steps(service, mode) if service.workers else ((), ())
    if mode != DAEMON:
        first = leader = early = ()
    return Plan(
        mode=mode,
        service=service,
        places=places,
        identity=host.identity,
        first=first,
        leader=leader,
        early=early,
        launcher=_launcher_steps(outside, host, places, mode),
        worker=_worker_steps(service, host, places, mode),
        last=(preparation.AwaitReady(seconds=service.ready_seconds),) if mode == DAEMON else (),
        program=program,
        template=template,
    )


def plan_workers(service: Declaration, host: Host, *, mode: str) -> Plan:
    """Decide what each worker of a generation does, for a supervisor that runs already.

    Raises:
        ConfigError: The service cannot run as it is declared.
    """
    check_service(service)
    if service.chroot:
        service = _enter_root(service)
    places = find_places(service.name, host, pid_file=service.pid_file, log=service.log)
    return plan_again(service, mode=mode, places=places)


def plan_again(
    service: Declaration, *, mode: str, places: Places, identity: Identity | None = None
) -> Plan:
    """Decide what each worker does, and what a supervisor does that was executed anew."""
    again: tuple[Step, ...] = ()
    if identity is not None:
        from forkfirst.plan import confinement  # noqa: PLC0415 - only for such a service

        runtime = "command" if service.command else service.runtime
        again = confinement.plan_after_exec(runtime)
    template, program = _program_steps(service, mode)
    return Plan(
        mode=mode,
        service=service,
        places=places,
        identity=identity,
        first=(),
        leader=(),
        early=(),
        launcher=(),
        worker=again,
        last=(),
        program=program,
        template=template,
    )


def _process_steps(
    service: Declaration, *, spawn: bool
) -> tuple[tuple[Step, ...], tuple[Step, ...], tuple[Step, ...]]:
    """Return the steps by which a daemon's processes are made: launcher, leader, service."""
    # What will be the supervisor never needs the runtime's module.
    module = "" if service.workers else early_module(service.target, service.runtime)
    if not spawn:
        return FIRST_STEPS, LEADER_STEPS, plan_early(module)
    from forkfirst.plan import spawning  # noqa: PLC0415 - only for such a start

    first = spawning.plan_first(service.name, module)
    return first, spawning.plan_leader(service.name, module), plan_early(module)


def _launcher_steps(
    service: Declaration, host: Host, places: Places, mode: str
) -> tuple[Step, ...]:
    chosen: list[Step] = [] if mode == DAEMON else [steps.HoldStandardDescriptors()]
    if mode != DAEMON and service.notify_fd >= 0:  # before its number is something else's
        chosen.append(_hold_readiness(service))
    chosen.extend(_check_program(service))
    if host.identity is not None:
        chosen.append(_check_readable(service, host.identity))
    chosen.extend(_directories(host, places))
    if places.pid_file:
        # The lock comes before anything that a second starter could disturb.
        chosen.append(preparation.LockPidFile(path=places.pid_file))
    if mode == DAEMON or service.log:
        chosen.extend(_log_steps(service, host, places))
    chosen.extend(_listener_steps(service, host))
    if places.control_socket:
        chosen.append(preparation.OpenControlSocket(path=places.control_socket))
    if places.record:
        chosen.append(preparation.KeepRecord(path=places.record))
    if mode == DAEMON:
        chosen.append(preparation.HandOver())
    if mode == FIRST_PROCESS:
        chosen.extend((steps.JudgeFork(), steps.Fork()))
    return tuple(chosen)


def _check_program(service: Declaration) -> tuple[Step, ...]:
    if service.command:
        return (preparation.CheckCommand(command=service.command[0], root=service.chroot),)
    named = preparation.CheckTarget(target=service.target, directory=service.source_directory)
    return (named, preparation.CheckServer(server=service.serve)) if service.serve else (named,)


def _log_steps(service: Declaration, host: Host, places: Places) -> tuple[Step, ...]:
    opened = preparation.OpenLog(path=places.log)
    if places.log_directory == places.run_directory:
        return (opened,)
    owner = None if service.log else host.identity
    made = preparation.MakeDirectory(
        path=places.log_directory, mode=0o755, private=False, owner=owner
    )
    return made, opened


def _listener_steps(service: Declaration, host: Host) -> tuple[Step, ...]:
    if host.passed or service.inetd or any(one.inherited for one in service.listeners):
        from forkfirst.plan import adoption  # noqa: PLC0415 - only where something is passed

        return adoption.plan_listeners(service, host)
    return tuple(plan_opening(service, listener) for listener in service.listeners)


def plan_opening(service: Declaration, listener: Listener) -> preparation.OpenListener:
    """Return the step that opens *listener*, which was not passed, for *service*."""
    if not is_spread(service, listener):
        return preparation.OpenListener(listener=listener)
    from forkfirst.plan import spreading  # noqa: PLC0415 - few services are spread

    return spreading.plan_opening(service, listener)


def _worker_steps(service: Declaration, host: Host, places: Places, mode: str) -> tuple[Step, ...]:
    chosen: list[Step] = []
    if mode == DAEMON:
        chosen.extend((steps.ResetSignalHandlers(), steps.UnblockSignals()))
    # daemon(7), step 4. Under a manager these variables are ours, and the runtime uses them.
    assigned = _describe_user(host.identity)
    if not service.workers:  # else they are the workers' own, and each generation's may differ
        assigned += service.environment
    chosen.append(steps.CleanEnvironment(remove=host.foreign_variables, assign=assigned))
    if host.notified:
        chosen.extend(_tell_manager(service, host, mode))
    chosen.append(steps.SetUmask(umask=service.umask))
    # daemon(7), step 11: "/" so that no file system is kept busy. In the foreground the supervisor
    # has chosen the directory, and a person at a terminal expects to stay where they are.
    directory = service.directory or ("/" if mode == DAEMON else "")
    if directory and not service.chroot:
        chosen.append(steps.ChangeDirectory(path=directory))
    if mode == DAEMON or service.log:
        chosen.append(steps.RedirectStandardStreams(log=places.log))
    if mode == DAEMON:
        # Only here: in the foreground the supervisor may have passed descriptors on purpose.
        chosen.append(steps.CloseDescriptors())
    if places.pid_file:
        chosen.append(steps.WritePid(path=places.pid_file))
    # daemon(7), step 13. Everything that needs privileges is open by now; what comes next is a
    # thread, and capabilities are a thread's own.
    if service.confined:
        chosen.extend(_confining_steps(service, host))
    if service.workers:
        chosen.append(steps.Supervise(workers=service.workers))
    else:
        chosen.extend((steps.ServeControl(), _run_program(service)))
    return tuple(chosen)


def _program_steps(service: Declaration, mode: str) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return the steps of the template, if there is to be one, and those of each worker."""
    chosen: list[Step] = [steps.CleanEnvironment(remove=(), assign=service.environment)]
    chosen.append(steps.SetUmask(umask=service.umask))
    directory = service.directory or ("/" if mode == DAEMON else "")
    if directory:
        chosen.append(steps.ChangeDirectory(path=directory))
    chosen.append(_run_program(service))
    if not service.preload:
        return (), tuple(chosen)
    from forkfirst.plan.fleet import preloading  # noqa: PLC0415 - only where there is one

    return preloading.divide(tuple(chosen), service)


def _run_program(service: Declaration) -> Step:
    return steps.RunProgram(
        target=service.target,
        command=service.command,
        runtime=service.runtime,
        server=service.serve,
    )


# -- a service under a manager ---------------------------------------------------------------


def _hold_readiness(service: Declaration) -> Step:
    from forkfirst.plan import managing  # noqa: PLC0415 - only where somebody wants to be told

    return managing.HoldReadiness(fd=service.notify_fd, needed=not service.command)


def _tell_manager(service: Declaration, host: Host, mode: str) -> tuple[Step, ...]:
    from forkfirst.plan import managing  # noqa: PLC0415 - as above

    # The manager of a container listens to its first process, and knows no other.
    as_pid = 1 if mode == FIRST_PROCESS else 0
    told = managing.TellManager(ready_seconds=service.ready_seconds, as_pid=as_pid)
    if not host.keeps or mode != FOREGROUND or service.inetd:
        return (told,)
    return told, managing.KeepListeners(most=host.keeps)


# -- a service that is to have less than whoever starts it -----------------------------------


def _confining_steps(service: Declaration, host: Host) -> tuple[Step, ...]:
    from forkfirst.plan import confinement  # noqa: PLC0415 - only for such a service

    chosen: list[Step] = []
    if service.limits:
        chosen.append(confinement.SetLimits(limits=service.limits))
    identity = host.identity
    if identity is not None:
        runtime = "command" if service.command else service.runtime
        chosen.append(confinement.LoadModules(runtime=runtime))
        if service.chroot:  # while it is allowed
            chosen.append(confinement.ChangeRoot(path=service.chroot))
            if service.directory:
                chosen.append(steps.ChangeDirectory(path=service.directory))
        chosen.append(confinement.DropPrivileges(identity=identity))
        chosen.append(confinement.ClearCapabilities(keep=service.keep_capabilities))
    forbid = service.no_new_privileges
    if forbid is None:
        forbid = identity is not None
    if forbid:
        chosen.append(confinement.ForbidNewPrivileges())
    if identity is not None:
        chosen.append(confinement.SetNotDumpable())
        chosen.append(
            confinement.VerifyDropped(
                identity=identity, keep=service.keep_capabilities, no_new_privileges=forbid
            )
        )
    return tuple(chosen)


def _check_readable(service: Declaration, identity: Identity) -> Step:
    from forkfirst.plan import confinement  # noqa: PLC0415 - as above

    return confinement.CheckReadable(
        identity=identity,
        target=service.target,
        command=service.command[0] if service.command else "",
        directory=service.source_directory,
        root=service.chroot,
    )


def _directories(host: Host, places: Places) -> tuple[Step, ...]:
    chosen = []
    if places.pid_file:
        own = places.record.rpartition("/")[0]
        chosen.append(preparation.MakeDirectory(path=own, mode=0o700, private=True))
    if host.identity is not None:  # that user could not make them
        made = (places.run_directory, places.state, places.cache)
        chosen.extend(
            preparation.MakeDirectory(path=path, mode=0o700, private=True, owner=host.identity)
            for path in made
        )
    return tuple(chosen)


def _describe_user(identity: Identity | None) -> tuple[tuple[str, str], ...]:
    """Return the variables that say who one is; those of whoever started it would be wrong."""
    if identity is None:
        return ()
    return (("HOME", identity.home), ("USER", identity.name), ("LOGNAME", identity.name))


def _check_rights(service: Declaration, host: Host) -> Host:
    """Return *host* with whom to become; nobody, if the service is started as that user already.

    Raises:
        PermissionRefusedError: Only root can become somebody else.
    """
    if host.identity is None or host.identity.uid == host.uid:
        if service.chroot:
            message = f'service "{service.name}": chroot means nothing for user {service.user}'
            raise ConfigError(message, hint="it needs root, who then becomes somebody else")
        return replace(host, identity=None)
    if host.uid != 0:
        message = f"cannot become {host.identity.name}: only root can, and this is uid {host.uid}"
        raise PermissionRefusedError(message)
    return host


def _enter_root(service: Declaration) -> Declaration:
    """Return *service* with its paths as they will be inside its new root directory."""
    if not service.chroot:
        return service
    place, colon, name = service.target.rpartition(":")
    if place.startswith("/"):
        place = _inside(service, place)
    return replace(
        service,
        target=f"{place}{colon}{name}",
        source_directory=_inside(service, service.source_directory, or_else="/"),
        directory=_inside(service, service.directory) if service.directory else "",
    )


def _inside(service: Declaration, path: str, *, or_else: str = "") -> str:
    root = service.chroot.rstrip("/")
    if f"{path}/".startswith(f"{root}/"):
        return path[len(root) :] or "/"
    if or_else:
        return or_else
    message = f'service "{service.name}": {path} is not below its new root directory {root}'
    raise ConfigError(message)
