"""Where the files of a service live: by its name and the user alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forkfirst.plan.host import Host
from forkfirst.plan.places import find_places, find_run_directory

NAMES = st.from_regex(r"[A-Za-z0-9_@][A-Za-z0-9_.@-]{0,20}", fullmatch=True)
HOSTS = st.builds(
    Host,
    uid=st.sampled_from([0, 1000]),
    pid=st.just(2),
    home=st.just("/home/me"),
    directory=st.just("/here"),
    state_directory=st.sampled_from(["", "/state"]),
    state_home=st.sampled_from(["", "relative", "/xdg"]),
)


@given(NAMES, HOSTS)
def test_every_path_is_absolute(name: str, host: Host) -> None:
    """N14: a relative one means another file after the daemon has gone to the root directory."""
    places = find_places(name, host)
    for path in (places.pid_file, places.control_socket, places.record, places.log):
        assert path.startswith("/")
        assert "//" not in path


@given(NAMES, HOSTS)
def test_what_identifies_a_service_is_in_one_directory(name: str, host: Host) -> None:
    """One that is its user's alone; the log may be where others read."""
    places = find_places(name, host)
    for path in (places.pid_file, places.control_socket, places.record):
        assert path.rpartition("/")[0] == places.run_directory == find_run_directory(host)
    assert places.log.rpartition("/")[0] == places.log_directory


@given(NAMES, NAMES, HOSTS)
def test_two_services_never_share_a_file(one: str, other: str, host: Host) -> None:
    """Whatever they are called."""
    if one == other:
        return
    first, second = find_places(one, host), find_places(other, host)
    files = ("pid_file", "control_socket", "record", "log")
    ours = {getattr(first, field) for field in files}
    theirs = {getattr(second, field) for field in files}
    assert len(ours) == len(files)
    assert not ours & theirs


@given(NAMES, HOSTS)
def test_what_was_asked_for_is_where_it_is(name: str, host: Host) -> None:
    """A pid file and a log of one's own choice; all else stays where it is found by name."""
    own = find_places(name, host, pid_file="/run/own.pid", log="/logs/own.log")
    assert (own.pid_file, own.log, own.log_directory) == ("/run/own.pid", "/logs/own.log", "/logs")
    usual = find_places(name, host)
    assert (own.record, own.control_socket) == (usual.record, usual.control_socket)


def test_a_log_in_the_root_directory_has_that_directory() -> None:
    """And not an empty text."""
    host = Host(uid=0, pid=2, home="/root", directory="/")
    assert find_places("a", host, log="/a.log").log_directory == "/"


def test_the_places_of_each_kind_of_user() -> None:
    """As the page on daemons says it."""
    root = find_places("app", Host(uid=0, pid=2, home="/root", directory="/"))
    assert (root.log, root.pid_file) == ("/var/log/forkfirst/app.log", "/run/forkfirst/app.pid")
    user = find_places("app", Host(uid=1000, pid=2, home="/home/me", directory="/"))
    assert user.log == "/home/me/.local/state/forkfirst/app.log"
    assert user.pid_file == "/home/me/.local/state/forkfirst/run/app.pid"
    homeless = Host(uid=1000, pid=2, home="/", directory="/")  # as container engines have it
    assert find_places("app", homeless).log == "/.local/state/forkfirst/app.log"
    xdg = Host(uid=1000, pid=2, home="/home/me", directory="/", state_home="/xdg")
    assert find_places("app", xdg).log == "/xdg/forkfirst/app.log"
    moved = Host(uid=0, pid=2, home="/root", directory="/", state_directory="/state")
    assert find_places("app", moved).log == "/state/app.log"
    assert find_places("app", moved).pid_file == "/state/run/app.pid"


def test_a_relative_state_home_is_ignored() -> None:
    """As the base directory specification demands."""
    host = Host(uid=1000, pid=2, home="/home/me", directory="/", state_home="relative")
    assert find_places("app", host).log == "/home/me/.local/state/forkfirst/app.log"
