"""The program of a service and what runs it: found after the fork, by whoever is to run it."""

from __future__ import annotations

from forkfirst import errors
from forkfirst.stages import taking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from forkfirst.stages.start import Start

_MODULES = {
    "asyncio": "asyncio_",
    "uvloop": "uvloop_",
    "trio": "trio_",
    "none": "plain",
    "command": "command",
}


def find(start: Start) -> tuple[ModuleType, Any, str]:
    """Return the runtime's module, the program or what serves the application, and the runtime.

    Raises:
        ForkfirstError: The program is not there, or what should run it is not installed.
        BaseException: Whatever the program's own import raises.
    """
    service = start.plan.service
    if start.program is None:
        load = import_runtime("target").load
        start.program = load(service.target, service.source_directory)
    runtime = _choose_runtime(start)
    main: Any = start.program
    if service.serve:
        application = import_runtime("serve.application")
        options = dict(service.serve_options)
        main = application.make_main(main, service.target, service.serve, options)
    return import_runtime(_MODULES[runtime]), main, runtime


def preload(start: Start) -> None:
    """Import the program and what will run it, for all who are forked from here; run nothing.

    Raises:
        As `find`.
    """
    service = start.plan.service
    start.program = import_runtime("target").load(service.target, service.source_directory)
    for name in ("context", "ending", "waiting", _MODULES[_choose_runtime(start)]):
        import_runtime(name)
    if service.serve:
        import_runtime("serve.application")
        try:
            import_runtime(f"serve.{service.serve}_")
        except errors.ForkfirstError:
            return  # each worker says what is missing, and how to install it
    if start.listeners:
        from forkfirst.unix import sockets  # noqa: F401, PLC0415 - to tell their addresses


def _choose_runtime(start: Start) -> str:
    service = start.plan.service
    if service.serve:
        from forkfirst.plan import serving  # noqa: PLC0415 - only for an application

        return serving.choose_runtime(service)
    if service.runtime != "auto":
        return service.runtime
    return "asyncio" if import_runtime("target").is_async(start.program) else "none"


def import_runtime(name: str) -> Any:
    """Import a module of our own: a failure of that is not the program's.

    Raises:
        SystemRefusedError: It cannot be read.
        ConfigError: The runtime that was asked for is not installed.
    """
    try:
        return __import__(f"forkfirst.runtime.{name}", fromlist=["run"])
    except (OSError, ImportError) as error:
        if not isinstance(error, ModuleNotFoundError) or error.name not in _MODULES:
            refusal = taking.explain("load the runtime", error)
            raise refusal from error
        message = f"cannot run on {error.name}: it is not installed"
        raise errors.ConfigError(message, hint=f"pip install 'forkfirst[{error.name}]'") from error
