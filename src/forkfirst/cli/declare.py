"""Flags and files to declarations: what `start`, `run`, `plan` and `restart` have in common."""

from __future__ import annotations

import os

from forkfirst import config, errors
from forkfirst.plan.service import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from forkfirst.plan.service import Declaration


def add_service_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that declare a service."""
    parser.usage = "%(prog)s [OPTION…] [TARGET | NAME | -- COMMAND ARG…]"
    add = parser.add_argument
    add(
        "target",
        nargs="?",
        metavar="TARGET",
        help="package.module:name or path/to/file.py:name (:main if left out), or the name of a "
        "service in the configuration file; with none, every service in that file",
    )
    add(
        "--config", metavar="FILE", help="read this instead of ./forkfirst.toml or ./pyproject.toml"
    )
    add("--name", help="what the service is called (default: from the target)")
    add(
        "--listen",
        action="append",
        metavar="NAME=ADDRESS",
        help="open this listener and pass it on: 8000, HOST:PORT, [V6]:PORT, unix:PATH, …; "
        "repeatable",
    )
    _add_runtime_arguments(parser)
    _add_place_arguments(parser)
    _add_log_arguments(parser)
    add("--ready-timeout", metavar="SECONDS", help="how long it may take to be ready (60)")
    add("--grace-period", metavar="SECONDS", help="how long it may take to stop (10)")
    add("--settle", metavar="SECONDS", help="a silent command is ready after so long (1)")
    add("--notify-fd", type=int, metavar="FD", help="a newline there says ready, as s6 has it")
    add("--pid-file", metavar="FILE", help="the pid file, which is the lock")
    add("--version", metavar="TEXT", help="what the program calls its own code, for status")
    add(
        "--inetd",
        action="store_const",
        const=True,
        help="serve the one connection that is passed on descriptor 3, or on 0 and 1, and end",
    )
    _add_worker_arguments(parser)
    _add_privilege_arguments(parser)


def _add_place_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--chdir", metavar="DIR", help="where the program runs (default: / in the background)")
    add("--umask", metavar="OCTAL", help="bits that new files never have (default: 027)")
    add("--env", action="append", metavar="NAME=VALUE", help="set a variable; repeatable")
    add("--env-file", metavar="FILE", help="set the variables in this file of NAME=VALUE lines")


def _add_runtime_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--runtime", metavar="RUNTIME", help="asyncio, uvloop, trio or none (default: as it fits)")
    add(
        "--serve",
        metavar="SERVER",
        help="the target is an ASGI or WSGI application; serve it with "
        "uvicorn, hypercorn or granian, or an aiohttp.web.Application with aiohttp",
    )
    add(
        "--serve-option",
        action="append",
        metavar="NAME=VALUE",
        help="an option of that server, as it calls it; repeatable",
    )


def _add_log_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--log", metavar="FILE", help="where the program's output goes")
    add("--log-size", metavar="BYTES", help="rotate the log at this size, such as 10MiB")
    add("--log-keep", type=int, metavar="N", help="how many rotated logs to keep (default: 5)")


def _add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--workers", type=int, metavar="N", help="so many processes, kept alive by a supervisor")
    # Two options, not one with a value that may be left out: that would take the target for it.
    add(
        "--preload",
        action="store_const",
        const=True,
        help="import the program once and fork the workers from there; if it cannot be forked, "
        "each worker imports it",
    )
    add(
        "--preload=require",
        action="store_const",
        const="require",
        dest="preload",
        help="the same; if it cannot be forked, refuse, and say why",
    )
    add(
        "--restart-policy",
        metavar="POLICY",
        help="which workers that end are replaced: always (default), on-failure or never",
    )
    add("--crash-limit", type=int, metavar="N", help="give up after N failures in a row (8)")
    add("--hang-timeout", metavar="SECONDS", help="replace a worker whose loop is stuck so long")
    add("--max-age", metavar="SECONDS", help="replace a worker that is so old")
    add("--max-memory", metavar="BYTES", help="replace a worker that has so much, such as 512MiB")
    add("--max-requests", type=int, metavar="N", help="replace a worker that has answered so many")
    add("--canary", metavar="PERCENT", help="reload so many workers first, and ask their health")
    add("--commit-window", metavar="SECONDS", help="a reload can still be undone for so long")


def _add_privilege_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--user", metavar="USER", help="become this user when everything is open; needs root")
    add("--group", metavar="GROUP", help="with this group instead of the user's own")
    add(
        "--supplementary",
        action="append",
        metavar="GROUP",
        help="and this one beside the user's; repeatable",
    )
    add(
        "--keep-capability",
        action="append",
        metavar="NAME",
        help="keep this power of root's, such as net_bind_service; repeatable",
    )
    add(
        "--no-new-privileges",
        action="store_const",
        const=True,
        help="nothing that is executed can ever give privileges (default with --user)",
    )
    add(
        "--allow-new-privileges",
        action="store_const",
        const=False,
        dest="no_new_privileges",
        help="set-user-id programs work, though --user is given",
    )
    add("--chroot", metavar="DIR", help="make this the root directory; the program is below it")
    add(
        "--limit",
        action="append",
        metavar="NAME=SOFT[:HARD]",
        help="set a resource limit, such as nofile=1024:4096; repeatable",
    )


_FLAGS = (
    "runtime",
    "serve",
    "serve_option",
    "listen",
    "chdir",
    "umask",
    "env_file",
    "log",
    "log_size",
    "log_keep",
    "ready_timeout",
    "grace_period",
    "settle",
    "notify_fd",
    "pid_file",
    "workers",
    "preload",
    "restart_policy",
    "crash_limit",
    "hang_timeout",
    "max_age",
    "max_memory",
    "max_requests",
    "canary",
    "commit_window",
    "user",
    "group",
    "supplementary",
    "keep_capability",
    "no_new_privileges",
    "chroot",
    "limit",
    "version",
    "inetd",
)


def make_declarations(arguments: argparse.Namespace) -> list[Declaration]:
    """Return the services that a command line means.

    Raises:
        UsageError: It names none, or more than flags can be given for.
        ConfigError: A value is wrong.
    """
    directory = os.getcwd()
    origin = config.Origin("command line", directory, prefix="--")
    flags: dict[str, Any] = {name.replace("_", "-"): getattr(arguments, name) for name in _FLAGS}
    flags["env"] = dict(_split_variable(text) for text in arguments.env or ())
    target = arguments.target
    if arguments.name is not None:
        check_name(arguments.name)
    if arguments.tail:
        if target:
            message = f"give either the target {target} or a command after --, not both"
            raise errors.UsageError(message)
        flags["command"] = arguments.tail
        return [config.make_declaration(arguments.name or "", [(flags, origin)])]
    if target and (":" in target or target.endswith(".py")):
        flags["target"] = target if ":" in target else f"{target}:main"
        return [config.make_declaration(arguments.name or "", [(flags, origin)])]
    return _from_file(arguments, flags, origin)


def _from_file(
    arguments: argparse.Namespace, flags: dict[str, Any], origin: config.Origin
) -> list[Declaration]:
    target = arguments.target
    what = f'no service "{target}"' if target else "no service was named"
    hint = "give a target such as app.py:main or package.app:main"
    path, services = _read_file(arguments.config, origin.directory, what, hint)
    if target and target not in services:
        message = f'no service "{target}" in {path}'
        hint = "it declares " + ", ".join(services)
        raise errors.UsageError(message, hint=hint)
    names = [target] if target else list(services)
    if arguments.name and len(names) > 1:
        message = f"--name needs one service, but {path} declares {len(names)}"
        raise errors.UsageError(message)
    folder = os.path.dirname(path)
    return [
        config.make_declaration(
            arguments.name or name,
            [
                (services[name], config.Origin(path, folder, prefix=f"service.{name}.")),
                (flags, origin),
            ],
        )
        for name in names
    ]


def list_declared(hint: str) -> list[str]:
    """Return the names of all services in the configuration file; if there is none, give *hint*.

    Raises:
        UsageError: There is no such file, or no service in it.
        ConfigError: As `config.read_services`.
    """
    return list(_read_file(None, os.getcwd(), "no service was named", hint)[1])


def _read_file(
    path: str | None, directory: str, what: str, hint: str
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return which file applies in *directory*, and the tables of its services, of which one is."""
    path = path or config.find_file(directory)
    if not path:
        message = f"{what}: there is neither forkfirst.toml nor [tool.forkfirst] in {directory}"
        raise errors.UsageError(message, hint=hint)
    path = os.path.join(directory, path)
    services = config.read_services(path)
    if not services:
        message = f"{path} declares no service"
        raise errors.UsageError(message)
    return path, services


def _split_variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        message = f"--env {text}: expected NAME=VALUE"
        raise errors.UsageError(message)
    return name, value
