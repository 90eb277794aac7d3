"""What serves an ASGI or WSGI application, what each server can take, and how that is checked."""

from __future__ import annotations

from forkfirst.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forkfirst.plan.host import Host
    from forkfirst.plan.service import Declaration

SERVERS = {
    "uvicorn": ("asyncio", "uvloop"),
    "hypercorn": ("asyncio", "uvloop", "trio"),
    "granian": ("asyncio", "uvloop"),
    "aiohttp": ("asyncio", "uvloop"),
}
"""Each server, and the runtimes that it runs on; the first of them if none is asked for."""

STREAM_KINDS = ("tcp", "unix", "vsock", "fd", "systemd")
"""Listeners that a server may take; what kind a passed one is shows when it is there."""

FILES = frozenset(
    (
        *("ssl_certfile", "ssl_keyfile", "ssl_ca_certs", "env_file", "log_config"),  # uvicorn
        *("certfile", "keyfile", "ca_certs", "logconfig"),  # hypercorn
        *("ssl_cert", "ssl_key", "ssl_ca", "ssl_crl", "static_path_mount"),  # granian
    )
)
"""Options that name files: relative ones start where they are given, not where the server runs."""


def check(service: Declaration) -> None:
    """Refuse what the server of *service* cannot do, whatever the machine is.

    Raises:
        ConfigError: It says what the server can do instead.
    """
    if not service.serve:
        if service.serve_options:
            _refuse(service, "serve-option means nothing without serve", "say which: " + _names())
        if service.target.endswith("()"):
            hint = f"or did you mean an application, with --serve {next(iter(SERVERS))}"
            _refuse(service, f"{service.target} is a call, and a program is a function", hint)
        return
    server = service.serve
    if server not in SERVERS:
        _refuse(service, f"serve {server!r} is not one of {_names()}")
    if service.command:
        _refuse(service, "a command serves by itself, and serve is for an application")
    if service.inetd:
        _refuse(service, f"{server} accepts connections, and inetd passes one that is accepted")
    if service.runtime not in ("auto", *SERVERS[server]):
        others = [name for name, runtimes in SERVERS.items() if service.runtime in runtimes]
        hint = f"on {service.runtime} runs {', '.join(others)}" if others else ""
        what = f"{server} runs on {' or '.join(SERVERS[server])}, not on {service.runtime}"
        _refuse(service, what, hint)
    for one in service.listeners:
        if one.kind not in STREAM_KINDS:
            hint = "it takes " + ", ".join(STREAM_KINDS)
            _refuse(service, f"{server} cannot take the {one.kind} listener {one}", hint)


def check_listeners(service: Declaration, host: Host) -> None:
    """Refuse to serve on nothing.

    Raises:
        ConfigError: There is no listener, and nobody has passed one.
    """
    if service.serve and not service.listeners and not host.passed:
        what = f"{service.serve} has nothing to listen on"
        _refuse(service, what, "give it a port, --listen 8000, or a path, --listen unix:/run/web")


def choose_runtime(service: Declaration) -> str:
    """Return the runtime that the server of *service* runs on."""
    return SERVERS[service.serve][0] if service.runtime == "auto" else service.runtime


def _names() -> str:
    return ", ".join(SERVERS)


def _refuse(service: Declaration, what: str, hint: str = "") -> None:
    message = f'service "{service.name}": {what}'
    raise ConfigError(message, hint=hint)
