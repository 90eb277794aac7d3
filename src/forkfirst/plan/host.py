"""Facts of this machine and this caller, as a value: what a plan may depend on."""

from __future__ import annotations

from forkfirst.values import Value


class Identity(Value):
    """Who a service becomes, looked up already.

    Attributes:
        name: The login name.
        uid: The user's number.
        gid: The group's number.
        groups: Every group that the service will be in, sorted; *gid* among them.
        home: The user's home directory.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class PassedDescriptor(Value):
    """One descriptor that was passed to this process.

    Attributes:
        name: What its sender calls it.
        fd: The descriptor.
        kind: What it really is: a kind of listener, "connection", or "other".
        listener: The listener of ours that it is, as it was declared, if the manager has kept it
            for us and it still is what its name says; or "".
    """

    name: str
    fd: int
    kind: str
    listener: str = ""


class Host(Value):
    """What is true here and now; read once by `stages.probe`, then only passed on.

    Attributes:
        uid: The effective user id.
        pid: This process.
        home: The user's home directory.
        directory: The current directory, absolute.
        state_directory: `$FORKFIRST_STATE_DIR`, or "".
        state_home: `$XDG_STATE_HOME`, or "".
        program: What starts forkfirst again: the interpreter and how it was told to find us.
        manager: Who supervises this process ("systemd", "a notification socket", …), or "".
        foreign_variables: Variables here that are addressed to another process, by name.
        passed: What was passed to this process, in order.
        connected_input: Whether standard input and output are one connection, where one is wanted.
        notified: Whether a manager wants to be told, through `$NOTIFY_SOCKET`.
        keeps: How many descriptors the manager keeps for us while we are not there (`$FDSTORE`).
        runtime_directory: `$RUNTIME_DIRECTORY`, the first, if a manager made one for this service.
        identity: Whom the service asked to become, if it asked for that.
        forks_well: Whether a forked process may go on without exec(2): macOS's may not.
    """

    uid: int
    pid: int
    home: str
    directory: str
    state_directory: str = ""
    state_home: str = ""
    program: tuple[str, ...] = ()
    manager: str = ""
    foreign_variables: tuple[str, ...] = ()
    passed: tuple[PassedDescriptor, ...] = ()
    connected_input: bool = False
    notified: bool = False
    keeps: int = 0
    runtime_directory: str = ""
    identity: Identity | None = None
    forks_well: bool = True
