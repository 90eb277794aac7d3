"""What importing a program leaves behind that would make a fork unsafe, and which line made it.

The import runs under watch (`guard.origin`) in an interpreter of its own, so nothing of the program
ever gets into this process, and nothing of this process is taken for the program's.
"""

from __future__ import annotations

import os
import signal
import time

from forkfirst import errors
from forkfirst.guard.hazard import Hazard, Origin
from forkfirst.stages.fresh import interpreter
from forkfirst.unix import channel, stdio
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.unix.channel import Report

_STDOUT, _STDERR = 1, 2


class Examined(Value):
    """What was seen of one program.

    Attributes:
        target: Its name, as it was given.
        hazards: What it leaves behind when it is imported, with the origins that were seen.
    """

    target: str
    hazards: tuple[Hazard, ...]


def examine_apart(target: str, directory: str, *, seconds: float) -> Examined:
    """Import *target* in a fresh interpreter and return what that leaves behind.

    What the program writes goes to our stderr.

    Args:
        target: The program's name.
        directory: Where it is looked for.
        seconds: How long the import may take.

    Raises:
        TargetError: It is not there.
        ProgramFailedError: Its import raised, which is shown on stderr, or ended the interpreter.
        StuckError: The import takes too long.
    """
    report_from, report_to = channel.open_channel()
    try:
        places = {interpreter.REPORT_TO: report_to, _STDOUT: _STDERR}
        examiner = interpreter.execute("examine", target, directory, descriptors=places)
    finally:
        os.close(report_to)
    try:
        return Examined(
            target=target, hazards=_read_hazards(channel.Reader(report_from), target, seconds)
        )
    finally:
        os.close(report_from)
        os.killpg(examiner, signal.SIGKILL)  # whatever the import has started ends with it
        os.waitpid(examiner, 0)


def _read_hazards(reader: channel.Reader, target: str, seconds: float) -> tuple[Hazard, ...]:
    deadline = time.monotonic() + seconds
    found: list[Hazard] = []
    try:
        while (report := reader.receive(max(0.0, deadline - time.monotonic()))) is not None:
            match report.kind:
                case "hazard":
                    found.append(_decode(report))
                case "examined":
                    return tuple(found)
                case "missing":
                    raise errors.TargetError(
                        str(report.fields["message"]), hint=str(report.fields["hint"])
                    )
                case _:
                    message = f"cannot check {target}: its import failed"
                    raise errors.ProgramFailedError(message)
    except TimeoutError as error:
        message = f"cannot check {target}: its import takes more than {seconds:g} s"
        raise errors.StuckError(message) from error
    message = f"cannot check {target}: its import ended the interpreter"
    raise errors.ProgramFailedError(message)


def _decode(report: Report) -> Hazard:
    fields = {name: str(value) for name, value in report.fields.items()}
    origin = None
    if fields["file"]:
        origin = Origin(
            file=fields["file"],
            line=int(fields["line"]),
            module=fields["module"],
            call=fields["call"],
        )
    return Hazard(
        kind=fields["sort"],
        certainty=fields["certainty"],  # type: ignore[arg-type] # one of the three: ours said it
        subject=fields["subject"],
        detail=fields["detail"],
        name=fields["name"],
        origin=origin,
        consequence=fields["consequence"],
        remedy=fields["remedy"],
    )


# -- in the fresh interpreter ----------------------------------------------------------------------


def examine(text: str, directory: str, report_to: int) -> None:
    """Import what *text* names and report each hazard; the whole of this process is for that."""
    from forkfirst.guard import verdict  # noqa: PLC0415 - whoever asks needs none of it
    from forkfirst.guard.origin import Watch  # noqa: PLC0415 - as above
    from forkfirst.runtime import target  # noqa: PLC0415 - as above

    before = verdict.find_hazards(thorough=True)
    try:
        with Watch() as watch:
            target.load(text, directory)
    except errors.TargetError as error:
        channel.send(report_to, "missing", message=str(error), hint=error.hint)
        return
    except BaseException:  # noqa: BLE001 - the program's own; SystemExit, too
        import traceback  # noqa: PLC0415 - only for a failure

        traceback.print_exc()
        stdio.flush_standard_streams()
        channel.send(report_to, "raised")
        return
    for hazard in verdict.find_hazards(thorough=True, watch=watch):
        if hazard not in before:
            _send(report_to, hazard)
    stdio.flush_standard_streams()  # after the last report this process is killed
    channel.send(report_to, "examined")


def _send(report_to: int, hazard: Hazard) -> None:
    origin = hazard.origin or Origin(file="", line=0)
    channel.send(
        report_to,
        "hazard",
        sort=hazard.kind,
        certainty=hazard.certainty,
        subject=hazard.subject,
        detail=hazard.detail,
        name=hazard.name,
        consequence=hazard.consequence,
        remedy=hazard.remedy,
        file=origin.file,
        line=origin.line,
        module=origin.module,
        call=origin.call,
    )
