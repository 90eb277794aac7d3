"""Which files changed: watchfiles in threads of their own, and a pipe to wait on.

watchfiles has native threads, so a process that made a `Changes` must never fork again; it may
spawn (`unix.spawn`).
"""

from __future__ import annotations

import os

from forkfirst import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_PATIENCE_SECONDS = 30.0
"""How long the kernel may take to watch a tree of folders."""

_ALSO_IGNORED = (
    # What a running program itself writes beside its source: to restart for it would never end.
    r"\.log$",
    r"\.pid$",
    r"\.sock$",
    r"\.(db|sqlite3?)$",
    r"-(journal|wal|shm)$",
    r"^\..*\.lock$",
    # What an editor writes before it renames it.
    r"^4913$",
    r"^#.*#$",
    r"^sed[A-Za-z0-9]{6}$",
    r"\.tmp$",
)


class Changes:
    """The changes below some paths, from now on.

    Caches, version control, virtual environments and the temporary files of editors do not count,
    nor do logs, pid files, sockets and databases. A file is watched through its folder, for most
    editors replace a file by another.

    Raises:
        UsageError: watchfiles is not installed.
        TargetError: A path is not there.
        SystemRefusedError: The kernel watches no more.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._found: list[str] = []
        self._failure: Exception | None = None
        absolute = [os.path.realpath(path) for path in paths]
        for path, given in zip(absolute, paths, strict=True):
            if not os.path.exists(path):
                message = f"cannot watch {given}: there is no such file or directory"
                raise errors.TargetError(message)
        self._receive, self._send = os.pipe()
        for fd in (self._receive, self._send):
            os.set_blocking(fd, False)
        folders = tuple(path for path in absolute if os.path.isdir(path))
        files = frozenset(absolute) - frozenset(folders)
        if folders:
            self._watch(folders, _make_filter(folders), recursive=True)
        if files:
            parents = tuple({os.path.dirname(path) for path in files})
            self._watch(parents, lambda _, path: path in files, recursive=False)

    def fileno(self) -> int:
        """Return the descriptor that is readable when something changed."""
        return self._receive

    def take(self) -> list[str]:
        """Return the paths that changed since the last call, each once, sorted; do not wait.

        Raises:
            SystemRefusedError: The watch has ended: the kernel's limits, or a file system is gone.
        """
        try:
            os.read(self._receive, 4096)
        except BlockingIOError:
            return []
        if self._failure is not None:
            message = f"cannot watch any longer: {self._failure}"
            raise errors.SystemRefusedError(message) from self._failure
        taken, self._found = self._found, []
        return sorted(set(taken))

    def _watch(
        self, paths: tuple[str, ...], wanted: Callable[[Any, str], bool], *, recursive: bool
    ) -> None:
        """Watch *paths* in a thread; return when the kernel does."""
        import threading  # noqa: PLC0415 - this process never forks, and is in no hurry

        began = _Began()
        thread = threading.Thread(
            target=self._run, args=(paths, wanted, began), kwargs={"recursive": recursive}
        )
        thread.daemon = True  # it ends with the process
        thread.start()
        if not began.wait(_PATIENCE_SECONDS) or self._failure is not None:
            folders = ", ".join(paths)
            message = f"cannot watch {folders}: {self._failure or 'it takes too long'}"
            raise errors.SystemRefusedError(message, hint=_HINT) from self._failure

    def _run(
        self,
        paths: tuple[str, ...],
        wanted: Callable[[Any, str], bool],
        began: _Began,
        *,
        recursive: bool,
    ) -> None:
        watch = load_watch()
        try:
            for changes in watch(
                *paths,
                watch_filter=wanted,
                stop_event=began,
                raise_interrupt=False,
                recursive=recursive,
                ignore_permission_denied=True,
            ):
                self._found += [path for _, path in changes]
                self._wake()
        except Exception as error:  # noqa: BLE001 - whatever it was, the main thread must hear of it
            self._failure = error
            began.set()
            self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._send, b"\0")
        except BlockingIOError:
            return  # full, so it is readable already


_HINT = "watch fewer files, or raise fs.inotify.max_user_watches and max_user_instances"


class _Began:
    """What watchfiles asks "shall I stop?": the first time it does, the kernel watches already."""

    def __init__(self) -> None:
        import threading  # noqa: PLC0415 - as above

        self._event = threading.Event()

    def is_set(self) -> bool:
        """Note that it was asked; it shall not stop."""
        self._event.set()
        return False

    def set(self) -> None:
        """Let nobody wait any longer."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it was asked for the first time."""
        return self._event.wait(seconds)


def load_watch() -> Callable[..., Any]:
    """Return the function `watchfiles.watch`.

    Raises:
        UsageError: It is not installed.
    """
    try:
        from watchfiles import watch  # noqa: PLC0415 - native, and an extra
    except ImportError as error:
        message = "cannot watch files: watchfiles is not installed"
        raise errors.UsageError(message, hint="pip install 'forkfirst[watch]'") from error
    return watch


def _make_filter(folders: tuple[str, ...]) -> Callable[[Any, str], bool]:
    """Return whether a change counts.

    watchfiles looks at every part of a path, so a project that itself is below a folder called
    `.venv` or `node_modules` would never change: only what is below *folders* is shown to it.
    """
    from watchfiles import DefaultFilter  # noqa: PLC0415 - as above

    usual = DefaultFilter(
        ignore_entity_patterns=(*DefaultFilter.ignore_entity_patterns, *_ALSO_IGNORED)
    )

    def counts(change: Any, path: str) -> bool:
        return any(
            usual(change, os.path.relpath(path, folder))
            for folder in folders
            if path.startswith(f"{folder.rstrip('/')}/")
        )

    return counts
