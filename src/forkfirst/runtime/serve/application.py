"""What was named: an application, or a function that makes one; and of which kind it is."""

from __future__ import annotations

import inspect

from forkfirst import errors
from forkfirst.runtime import target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

KINDS = ("auto", "asgi", "wsgi")
_ASGI_PARAMETERS = 3  # scope, receive, send
_WSGI_PARAMETERS = 2  # environ, start_response


def make_main(
    found: Callable[..., Any], name: str, server: str, options: dict[str, object]
) -> Callable[..., Any]:
    """Return the program that serves with *server* what *name* names, which is *found*.

    A function that needs nothing, or a name that ends in `()`, is a factory: it is called here, in
    the process that serves. The option `interface` says what cannot be seen, "asgi" or "wsgi".

    Raises:
        ConfigError: It is no application that *server* can serve.
        BaseException: What the factory raised.
    """
    try:
        module = __import__(f"forkfirst.runtime.serve.{server}_", fromlist=["make_main"])
    except ModuleNotFoundError as error:
        message = f"cannot serve with {server}: there is no module {error.name!r}"
        raise errors.ConfigError(message, hint=f"pip install 'forkfirst[{server}]'") from error
    interface = options.pop("interface", "auto")
    if interface not in KINDS:
        message = f"interface {interface!r} is not one of {', '.join(KINDS)}"
        raise errors.ConfigError(message)
    is_factory = name.endswith("()") or _count_parameters(found) == 0
    if is_factory and (server == "aiohttp" or not target.is_async(found)):
        found = found()
    if server == "aiohttp":  # whose factories may be coroutine functions
        return module.make_main(found, options)  # type: ignore[no-any-return]
    _refuse_aiohttp(found, name, server)
    is_wsgi = interface == "wsgi" or (interface == "auto" and _is_wsgi(found))
    if is_wsgi and not module.TAKES_WSGI:
        found, is_wsgi = _adapt_wsgi(found, name, server), False
    if not is_wsgi and interface == "auto" and not _is_asgi(found):
        message = f"{name} is {_describe(found)}, neither an ASGI nor a WSGI application"
        hint = "an ASGI application takes scope, receive and send; see --serve-option interface="
        raise errors.ConfigError(message, hint=hint)
    return module.make_main(found, options, is_wsgi=is_wsgi)  # type: ignore[no-any-return]


def _is_asgi(found: Callable[..., Any]) -> bool:
    return _count_parameters(found) in (None, _ASGI_PARAMETERS)


def _is_wsgi(found: Callable[..., Any]) -> bool:
    return not target.is_async(found) and _count_parameters(found) == _WSGI_PARAMETERS


def _count_parameters(found: Callable[..., Any]) -> int | None:
    """Return how many arguments *found* must be given, or None if that cannot be known."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(
        one.kind in positional and one.default is inspect.Parameter.empty for one in parameters
    )


def _refuse_aiohttp(found: object, name: str, server: str) -> None:
    root = type(found).__module__.partition(".")[0]
    if root == "aiohttp":
        message = f"{name} is an aiohttp application, which {server} cannot serve: it is no ASGI"
        raise errors.ConfigError(message, hint="give --serve aiohttp")


def _adapt_wsgi(found: Callable[..., Any], name: str, server: str) -> Callable[..., Any]:
    """Return an ASGI application that runs the WSGI one in threads."""
    try:
        from a2wsgi import WSGIMiddleware  # noqa: PLC0415 - only for WSGI
    except ModuleNotFoundError as error:
        message = f"{name} is a WSGI application, and {server} needs a2wsgi to serve one"
        hint = "pip install 'forkfirst[wsgi]', or give --serve hypercorn, which serves WSGI itself"
        raise errors.ConfigError(message, hint=hint) from error
    return WSGIMiddleware(found)  # type: ignore[no-any-return]


def _describe(found: object) -> str:
    return f"a {type(found).__name__}"
