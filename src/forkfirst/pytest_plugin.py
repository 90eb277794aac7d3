"""A pytest plugin: `--fork-hazards` fails a test that leaves behind what makes a fork unsafe.

Threads, loops and child processes that outlive a test belong to nobody; a program whose tests leave
some cannot be preloaded and forked. The same holds for an import: a test module that starts
something by being imported fails at its collection, with the line that did it.

What a fixture of a wider scope makes is its own business until the last test is over; what is still
there then is told with that test. A mark allows what a test is known to leave:

    @pytest.mark.allow_fork_hazards("the pool is the process's", kinds=["executor-threads"])

pytest is imported by whoever loads this module; here it is only asked for in functions, as
everything that could be loaded before a fork.
"""

from __future__ import annotations

from forkfirst.guard import verdict
from forkfirst.guard.hazard import describe_hazards
from forkfirst.guard.origin import Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import pytest

    from forkfirst.guard.hazard import Hazard

_MARK = "allow_fork_hazards"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option; without it this plugin does nothing."""
    group = parser.getgroup("forkfirst")
    group.addoption(
        "--fork-hazards",
        action="store_true",
        help="fail a test, or an import, that leaves threads, loops or child processes behind",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, and watch if that was asked for."""
    config.addinivalue_line(
        "markers",
        f"{_MARK}(reason, kinds=None): the test may leave fork hazards behind (of these kinds)",
    )
    if config.getoption("--fork-hazards"):
        config.pluginmanager.register(_make_plugin(), "forkfirst-hazards")


class Leftovers:
    """What is there, what was there before, and what is a wider fixture's.

    Compares by what the kernel numbers (threads, descriptors, processes), not by looks.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._of_fixtures: set[str] = set()

    def remember(self) -> None:
        """Take what is there now for granted."""
        self._known = _name_things(verdict.find_hazards(grace=0))

    def entrust_to_fixtures(self) -> None:
        """Take what has come since `remember` for a wider fixture's, to be asked for later."""
        self._of_fixtures |= _name_things(verdict.find_hazards(grace=0)) - self._known

    def find_new(self, *, last: bool, watch: Watch | None = None) -> tuple[Hazard, ...]:
        """Return what was left since `remember`, and with the last test also by fixtures."""
        taken = self._known - self._of_fixtures if last else self._known | self._of_fixtures
        # Quick first: the grace of the second look is only for what seems to be left.
        if not _name_things(verdict.find_hazards(grace=0)) - taken:
            return ()
        found = verdict.find_hazards(watch=watch)
        return tuple(hazard for hazard in found if set(_key(hazard)) - taken)


def _key(hazard: Hazard) -> tuple[str, ...]:
    return hazard.things or (hazard.kind,)


def _name_things(hazards: Iterable[Hazard]) -> set[str]:
    return {thing for hazard in hazards for thing in _key(hazard)}


def _make_plugin() -> object:
    """Return the hooks; made here because a wrapper needs pytest's own decorator."""
    import pytest  # noqa: PLC0415 - see the head of this file

    class ForkHazards:
        def __init__(self) -> None:
            self._leftovers = Leftovers()

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_make_collect_report(self, collector: pytest.Collector) -> Any:
            if not isinstance(collector, pytest.Module):
                return (yield)
            self._leftovers.remember()
            with Watch() as watch:
                report = yield
            left = self._leftovers.find_new(last=False, watch=watch)
            if left and report.outcome == "passed":
                report.outcome = "failed"
                report.longrepr = _describe(f"the import of {collector.nodeid}", left)
            return report

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_setup(self, item: pytest.Item) -> Any:
            self._leftovers.remember()
            try:
                return (yield)
            finally:
                if _uses_wider_fixtures(item):
                    self._leftovers.entrust_to_fixtures()

        @pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: after every fixture's end
        def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Any:
            result = yield
            left = _without_allowed(item, self._leftovers.find_new(last=nextitem is None))
            if left:
                pytest.fail(_describe(item.nodeid, left), pytrace=False)
            return result

    return ForkHazards()


def _uses_wider_fixtures(item: pytest.Item) -> bool:
    """Return whether a fixture of the test lives longer than the test."""
    information = getattr(item, "_fixtureinfo", None)
    definitions = getattr(information, "name2fixturedefs", {})
    return any(each[-1].scope != "function" for each in definitions.values() if each)


def _without_allowed(item: pytest.Item, left: tuple[Hazard, ...]) -> tuple[Hazard, ...]:
    for mark in item.iter_markers(_MARK):
        if not mark.args or not str(mark.args[0]).strip():
            import pytest  # noqa: PLC0415 - see the head of this file

            pytest.fail(f"{item.nodeid}: the mark {_MARK} needs a reason", pytrace=False)
        kinds = mark.kwargs.get("kinds")
        left = tuple(hazard for hazard in left if kinds is not None and hazard.kind not in kinds)
    return left


def _describe(who: str, left: tuple[Hazard, ...]) -> str:
    _, _, facts = describe_hazards(left).partition("\n")
    return f"{who} leaves behind what makes a fork unsafe\n{facts}"
