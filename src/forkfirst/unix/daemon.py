"""Becoming a daemon in one call, for those who want only that.

Apart from `session`, because it reports, waits and reaps as well, and a start needs none of that.
"""

from __future__ import annotations

import os

from forkfirst.unix import channel, children, session, signals, stdio


def daemon(*, nochdir: bool = False, noclose: bool = False) -> None:
    """Go on as a daemon: fork, new session, fork again; return only in the daemon.

    Changes to "/" unless *nochdir*, and puts /dev/null on 0-2 unless *noclose*. The calling
    process waits and leaves with status 0 when the daemon is detached altogether; if that fails it
    is still there, and gets the error. If it is interrupted or dies before, no daemon is left.

    Does not close other descriptors, nor touch signals, umask or the environment, nor write a pid
    file; it does not look for threads.

    Raises:
        OSError: A step failed, in this process or in a child; nothing was left running.

    Source: daemon(3), daemon(7) steps 5-9, 11 and 15.
    """
    caller = os.getpid()
    reading, writing = channel.open_channel()
    # No handler may raise between the fork and where either side is ready for it: the child would
    # unwind the caller's frames, and the caller would leave the pipe open that keeps the child.
    mask = signals.block_all()
    try:
        first = session.fork()
        if first == 0:
            os.close(reading)
            _detach(writing, mask, nochdir=nochdir, noclose=noclose)
            return
        os.close(writing)
        writing = -1
        signals.set_mask(mask)
        report = channel.Reader(reading).receive(None)
    finally:
        if os.getpid() == caller:
            for end in (reading, writing):
                if end >= 0:
                    os.close(end)
            signals.set_mask(mask)  # last: what was held back may raise here
    status = _wait_for(first)
    if report is not None and report.kind == "detached":
        session.leave(0)
    if report is not None:
        raise OSError(*_take_error(report))
    message = f"the daemon was not detached: its parent {children.describe_status(status)}"
    raise ChildProcessError(message)


def _detach(writing: int, mask: frozenset[int], *, nochdir: bool, noclose: bool) -> None:
    """Return in the grandchild only; every other way out of here ends the process."""
    try:
        signals.set_mask(mask)
        session.start_session()
        if not nochdir:
            os.chdir("/")
        if not noclose:
            stdio.redirect_stdio()
        # Not the leader of its session, so opening a terminal cannot give it one.
        second = session.fork()
        if second == 0:
            # Also fails, with EPIPE, when the caller died or was interrupted: end then.
            channel.send(writing, "detached")
    except OSError as error:
        _report_error(writing, error)
        session.leave(1)
    except BaseException:  # noqa: BLE001 - the caller's frames must not run here
        session.leave(1)
    if second:
        session.leave(0)
    os.close(writing)


def _report_error(writing: int, error: OSError) -> None:
    name = error.filename if isinstance(error.filename, str) else ""
    try:
        channel.send(
            writing, "failed", number=error.errno or 0, text=error.strerror or "", path=name
        )
    except OSError:
        return  # the caller is gone: nobody to tell


def _take_error(report: channel.Report) -> tuple[object, ...]:
    fields = report.fields
    error = (fields.get("number"), fields.get("text"))
    return (*error, fields["path"]) if fields.get("path") else error


def _wait_for(pid: int) -> int:
    """Reap the first child, so that who waits for the caller sees only the daemon left."""
    try:
        return children.waitpid(pid)
    except ChildProcessError:
        return 0  # SIGCHLD is ignored, so the kernel reaped it
