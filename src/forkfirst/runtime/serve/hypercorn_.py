"""An ASGI or WSGI application served by hypercorn, on asyncio, uvloop or trio."""

from __future__ import annotations

import sys
import typing
from importlib.metadata import version

from hypercorn.app_wrappers import WSGIWrapper
from hypercorn.config import Config, Sockets

from forkfirst.runtime.serve import asgi, parting
from forkfirst.runtime.serve import options as options_
from forkfirst.runtime.serve.listeners import BACKLOG, list_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from forkfirst.runtime.context import Context

TAKES_WSGI = True

_FOR_EVER = 86_400.0  # our own limits are nearer, and trio takes no None
_OWNED = {
    **dict.fromkeys(("bind", "insecure_bind", "quic_bind"), "give --listen"),
    "application_path": "name the application as module:name",
    "workers": "give --workers",
    "worker_class": "give --runtime",
    "use_reloader": "give forkfirst run --watch",
    "graceful_timeout": "give --grace-period",
    "startup_timeout": "give --ready-timeout",
    "shutdown_timeout": "give --grace-period",
    "pid_path": "give --pid-file",
    "daemon": "give forkfirst start, or run",
    **dict.fromkeys(("user", "group", "umask"), "give the flag of that name"),
}


class _Config(Config):  # type: ignore[misc]  # its types are known only where it is installed
    """hypercorn's, which can also tell every client of HTTP/1 that its connection ends."""

    closing = False

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = super().response_headers(protocol)
        if self.closing and protocol == "h11":
            headers.append(parting.LAST)
        return headers


def make_main(
    application: Callable[..., Any], options: dict[str, Any], *, is_wsgi: bool
) -> Callable[[Context], Awaitable[None]]:
    """Return the program that serves *application* on the service's listeners.

    It raises what the application's lifespan raised.

    Raises:
        ConfigError: The options are not hypercorn's.
    """
    served = asgi.Application(application, options)
    config = _make_config(options)
    wsgi = WSGIWrapper(application, config.wsgi_max_body_size) if is_wsgi else None

    async def serve(scope: Any, receive: Any, send: Any, spawn: Any, call_soon: Any) -> None:
        if wsgi is None:
            await served(scope, receive, send)
        else:
            if scope["type"] == "http":
                served.count()
            await wsgi(scope, receive, send, spawn, call_soon)

    async def main(context: Context) -> None:
        await _serve(serve, served, config, context)

    return main


async def _serve(
    serve: Callable[..., Awaitable[None]],
    served: asgi.Application,
    config: _Config,
    context: Context,
) -> None:
    served.count = context.served
    sockets = list_streams(context, "hypercorn")
    ours = Sockets(sockets, [], []) if config.ssl_enabled else Sockets([], sockets, [])
    worker_serve, part = _find_on_trio() if _runs_on_trio() else _find_on_asyncio()

    async def wait_stopping() -> None:  # called by hypercorn when it serves
        if served.lifespan.failure is not None:
            return  # trio's nursery has not been told yet; it is raised below
        context.ready(f"served by hypercorn {version('hypercorn')}")
        await context.wait_stopping()
        context.pause_accepting()
        config.closing = True
        left = parting.begin_drain(context)
        await part(served.websockets.leave(), left())
        config.graceful_timeout = left()

    raised: BaseException | None = None
    try:
        await worker_serve(serve, config, sockets=ours, shutdown_trigger=wait_stopping)
    except BaseException as error:  # noqa: BLE001 - raised again, if it is not hypercorn's for ours
        raised = error
    served.lifespan.check()
    if raised is not None:
        raise raised


def _make_config(options: dict[str, Any]) -> _Config:
    annotations = {
        **{name: type(value) for name, value in vars(Config).items() if _is_option(name, value)},
        **{name: one for name, one in typing.get_type_hints(Config).items() if name[0] != "_"},
        "root_path": str,
    }
    given = options_.read("hypercorn", options, annotations, _OWNED)
    config = _Config()
    for name, value in {"backlog": BACKLOG, **given}.items():
        setattr(config, name, value)
    config.startup_timeout = config.shutdown_timeout = _FOR_EVER
    try:
        config.create_ssl_context()
    except (OSError, ValueError) as error:
        raise options_.refuse(error, "hypercorn") from error
    return config


def _is_option(name: str, value: object) -> bool:
    return name[0] != "_" and isinstance(value, str | int | float | list)


def _runs_on_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def _find_on_asyncio() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what serves on asyncio, and what parts from its clients.

    That also cancels those who are left after the grace period: hypercorn begins to count its own
    when its servers are closed, and from CPython 3.12 on they are when the last connection is.
    """
    import asyncio  # noqa: PLC0415 - who runs on trio need not have it

    from hypercorn.asyncio.run import worker_serve  # noqa: PLC0415 - as above

    def list_connections() -> list[asyncio.Task[Any]]:
        # hypercorn keeps them to itself, under this name.
        return [one for one in asyncio.all_tasks() if "_server_callback" in repr(one.get_coro())]

    def cancel_all() -> None:
        for task in list_connections():
            task.cancel()

    async def part(leaving: list[Awaitable[None]], seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, cancel_all)
        await parting.linger(leaving, list_connections)

    return worker_serve, part


def _find_on_trio() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what serves on trio, and what parts from its clients."""
    import trio  # noqa: PLC0415 - who runs on asyncio need not have it
    from hypercorn.trio.run import worker_serve  # noqa: PLC0415 - as above

    async def wait(one: Awaitable[None]) -> None:
        await one

    async def part(leaving: list[Awaitable[None]], _: float) -> None:
        with trio.move_on_after(parting.LINGER_SECONDS):
            async with trio.open_nursery() as nursery:
                for one in leaving:
                    nursery.start_soon(wait, one)
                root: Any = trio.lowlevel.current_root_task()
                while any(  # noqa: ASYNC110 - nobody tells
                    "TCPServer" in repr(one) for one in _list_descendants(root)
                ):
                    await trio.sleep(parting.LOOK_SECONDS)

    return worker_serve, part


def _list_descendants(task: Any) -> list[Any]:
    children = [one for nursery in task.child_nurseries for one in nursery.child_tasks]
    return children + [below for one in children for below in _list_descendants(one)]
