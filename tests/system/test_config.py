"""forkfirst.toml and [tool.forkfirst]: typed, checked, and wrong in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forkfirst import config, errors
from support.service_home import NOBODY, PROGRAMS

if TYPE_CHECKING:
    from pathlib import Path

    from support.service_home import Done, Home

WAIT = f"{PROGRAMS / 'daemons.py'}:wait"
SERVE = f"{PROGRAMS / 'daemons.py'}:serve"
TWO = f"""
[service.one]
target = "{WAIT}"
[service.two]
target = "{SERVE}"
listen = "web=127.0.0.1:0"
"""


def write(home: Home, text: str, name: str = "forkfirst.toml") -> None:
    home.program(name, text)


def names(home: Home) -> set[str]:
    """Return the names of the services that run."""
    return {path.stem for path in (home.state / "run").glob("*.pid")}


# -- several services -----------------------------------------------------------------------------


def test_a_start_without_a_target_starts_what_the_file_declares(home: Home) -> None:
    """All of it, each as a service of its own."""
    write(home, TWO)
    out = home.start().out.splitlines()
    assert [line.partition(":")[0] for line in out] == ["one", "two"]
    assert sorted(home.list_processes()) == sorted([home.pid("one"), home.pid("two")])


def test_a_start_with_a_name_starts_that_one(home: Home) -> None:
    """By its name in the file."""
    write(home, TWO)
    home.start("two")
    assert names(home) == {"two"}


def test_restart_and_stop_without_a_name_mean_all_of_the_file(home: Home) -> None:
    """What one command started, one command ends."""
    write(home, TWO)
    home.start()
    before = {home.pid("one"), home.pid("two")}
    again = home.forkfirst("restart")
    assert (again.status, again.err) == (0, "")
    after = {home.pid("one"), home.pid("two")}
    assert not before & after
    assert {*home.list_processes()} == after
    done = home.forkfirst("stop")
    assert (done.status, done.err) == (0, "")
    assert [line.partition(":")[0] for line in done.out.splitlines()] == ["one", "two"]
    assert home.list_processes() == {}


def test_of_several_names_each_is_stopped_whatever_becomes_of_the_others(home: Home) -> None:
    """The first failure's status is the command's."""
    write(home, TWO)
    home.start()
    home.stop("one")
    done = home.forkfirst("stop", "one", "two")
    assert done.status == errors.NotRunningError.exit_status
    assert '"one" is not running' in done.err
    assert done.out.startswith("two: stopped")
    assert home.list_processes() == {}


def test_stop_without_a_name_and_without_a_file_stops_nothing(home: Home) -> None:
    """A guess would stop something that was not meant."""
    home.start(f"{PROGRAMS / 'daemons.py'}:wait", "--name", "other")
    done = home.forkfirst("stop")
    assert done.status == 64
    assert "no service was named: there is neither forkfirst.toml" in done.err
    assert done.err.endswith("\n  name one, to stop it\n")
    assert names(home) == {"other"}


def test_one_that_fails_does_not_keep_the_others_from_starting(home: Home) -> None:
    """Each says how it went; the first failure's status is the command's."""
    write(home, TWO.replace(":wait", ":nosuch"))
    done = home.forkfirst("start")
    assert done.status == 66
    assert done.out.startswith("two: running in the background")
    assert done.err.startswith('forkfirst: cannot start "one": ')
    assert names(home) == {"two"}


def test_what_runs_already_does_not_keep_the_others_from_starting(home: Home) -> None:
    """To give the same command again is to start what is missing."""
    write(home, TWO)
    home.start("one")
    first = home.pid("one")
    done = home.forkfirst("start")
    assert done.status == 75
    assert done.err == f'forkfirst: cannot start "one": already running (pid {first})\n'
    assert names(home) == {"one", "two"}


def test_one_of_several_is_restarted_alone(home: Home) -> None:
    """Its record says how that one is started, not how all of them were."""
    write(home, TWO)
    home.start()
    before = home.pid("one"), home.pid("two")
    done = home.forkfirst("restart", "two", cwd="/")
    assert (done.status, done.err) == (0, "")
    assert done.out.count("\n") == 1
    assert home.pid("one") == before[0]
    assert home.pid("two") != before[1]


def test_start_r_restarts_all_of_them(home: Home) -> None:
    """With or without one that runs."""
    write(home, TWO)
    home.start("one")
    first = home.pid("one")
    home.start("-r")
    assert names(home) == {"one", "two"}
    assert home.pid("one") != first


def test_a_foreground_has_room_for_one(home: Home) -> None:
    """64, with what to do."""
    write(home, TWO)
    done = home.forkfirst("run")
    assert (done.status, done.out) == (64, "")
    assert done.err == (
        "forkfirst: the foreground is for one service, and the file declares 2\n"
        "  name one of them: one, two\n"
    )


# -- where it is, and what is over what -----------------------------------------------------------


def test_pyproject_may_have_it(home: Home) -> None:
    """Under [tool.forkfirst], beside everything else."""
    write(
        home,
        '[project]\nname = "x"\n' + TWO.replace("[service", "[tool.forkfirst.service"),
        "pyproject.toml",
    )
    home.start("one")
    assert names(home) == {"one"}


def test_a_pyproject_without_it_is_not_ours(home: Home) -> None:
    """Then there is no configuration at all."""
    write(home, '[project]\nname = "x"\n', "pyproject.toml")
    done = home.forkfirst("start")
    assert done.status == 64
    assert "there is neither forkfirst.toml nor [tool.forkfirst] in" in done.err


def test_another_file_may_be_named(home: Home) -> None:
    """And its relative paths start where it is."""
    there = home.directory / "there"
    there.mkdir()
    (there / "conf.toml").write_text('[service.app]\ntarget = "app.py"\nlog = "own.log"\n')
    (there / "app.py").write_text("async def main(c):\n    print('hello')\n    c.ready()\n")
    home.start("--config", "there/conf.toml")
    home.wait_alone()
    assert (there / "own.log").read_text() == "hello\n"


def test_flags_are_over_the_file(home: Home) -> None:
    """Each key by itself; variables are added."""
    home.program(
        "app.py",
        "import os\nprint(os.environ['A'], os.environ['B'])\n"
        "def main(c):\n    c.ready()\n    c.wait_stopping_blocking()\n",
    )
    text = '[service.app]\ntarget = "app.py"\nlisten = "web=127.0.0.1:0"\ngrace-period = "3s"\n'
    write(home, text + 'env = {A = "file", B = "file"}\n')
    path = f"{home.directory}/web"
    home.start("app", "--listen", f"web=unix:{path}", "--env", "A=flag")
    facts = home.status("app")
    assert (facts["grace_seconds"], facts["listeners"][0][0]) == (3.0, "web")
    assert home.address("app") == path
    assert home.log("app") == "flag file\n"


# -- what is wrong --------------------------------------------------------------------------------

WRONG = {
    "target = 3": "service.app.target: expected `str | null`, got `int`",
    'target = "a"\nnosuch = 1': "service.app: unknown key `nosuch`; expected one of target",
    'target = "a"\nlisten = 8000': "service.app.listen: expected `str | array | null`, got `int`",
    'target = "a"\nlisten = ["web=nowhere:x"]': "service.app.listen: ",
    'target = "a"\nlisten = ["8000", 3]': "service.app.listen[1]: expected `str`, got `int`",
    'target = "a"\nenv = {A = 1}': "service.app.env[...]: expected `str`, got `int`",
    'target = "a"\nenv-file = "/nosuch"': "service.app.env-file: cannot read /nosuch: ",
    'target = "a"\nready-timeout = "soon"': "service.app.ready-timeout: expected seconds such as",
    'target = "a"\nready-timeout = true': "service.app.ready-timeout: expected `",
    'target = "a"\nready-timeout = -1': "ready",
    'target = "a"\ngrace-period = "inf"': "grace",
    'target = "a"\numask = "abc"': "service.app.umask: expected an octal number such as 027",
    'target = "a"\numask = 4096': "umask 0o10000 is not between 0 and 0o777",
    'target = "a"\nruntime = "curio"': "runtime 'curio' is not one of auto, asyncio, uvloop,",
    'target = "a"\nlog-size = "big"': "service.app.log-size: expected bytes such as 1048576",
    'target = "a"\nlog-size = -1': "log-size must be 0 or more",
    'target = "a"\nlog-keep = -1': "log-keep must be 0 or more",
    'target = "a"\nlog-keep = "x"': "service.app.log-keep: expected `int | null`, got `str`",
    'target = "a"\nsettle = -1': "settle must be 0 or more",
    'command = "sleep 1"': "service.app.command: expected `array | null`, got `str`",
    "command = []": "command",
    'command = [""]': "command",
    'log = "x"': 'service "app": give either a target or a command',
    'target = "a"\ncommand = ["b"]': "service.app.command: expected either a target or a command",
}


def refuse(home: Home, *words: str) -> Done:
    """Start with a wrong file: 78, one line, nothing left."""
    done = home.forkfirst("start", *words)
    assert (done.status, done.out) == (78, ""), done
    assert "Traceback" not in done.err
    assert (home.list_processes(), home.list_files()) == ({}, [])
    return done


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_value_is_one_line_with_file_key_and_what_was_expected(
    home: Home, text: str
) -> None:
    """Found before anything is done."""
    write(home, f"[service.app]\n{text}\n")
    done = refuse(home)
    first = done.err.splitlines()[0]
    assert first.startswith("forkfirst: ")
    assert WRONG[text] in first
    assert f"{home.directory}/forkfirst.toml: " in first or 'service "app": ' in first


WHOLE = {
    "service = 3": "service: expected `object`, got `int`",
    "[service]\napp = 3": "service.app: expected `object`, got `int`",
    "[service.app.more]\nx = 1": "service.app: unknown key `more`",
    "[services.app]": "forkfirst.toml: unknown key `services`; expected one of service, check",
    "[service.app": "not valid TOML: ",
    '[service."a b"]\ntarget = "a"': "'a b' cannot name a service",
    '[service."-a"]\ntarget = "a"': "'-a' cannot name a service",
}


@pytest.mark.parametrize("text", WHOLE)
def test_a_wrong_file_is_one_line(home: Home, text: str) -> None:
    """Its shape, its syntax, or a name that could not be a file's."""
    write(home, text)
    assert WHOLE[text] in refuse(home).err.splitlines()[0]


def test_a_mistyped_key_is_recognized(home: Home) -> None:
    """Of forty keys, the one that was meant is a letter away."""
    write(home, '[service.app]\ntarget = "a:b"\nlisten-timeout = 3\n')
    assert "did you mean" not in refuse(home).err
    write(home, '[service.app]\ntarget = "a:b"\nready-timout = 3\n')
    assert refuse(home).err.endswith("\n  did you mean ready-timeout\n")


def test_a_file_that_is_no_text(home: Home) -> None:
    """UTF-8 is TOML's only encoding."""
    (home.directory / "forkfirst.toml").write_bytes(b"[service.app]\ntarget = '\xff'\n")
    assert "not valid TOML" in refuse(home).err


def test_a_pyproject_of_a_wrong_shape(home: Home) -> None:
    """Not a traceback of ours."""
    write(home, "tool.forkfirst = 3  # [tool.forkfirst]\n", "pyproject.toml")
    assert "pyproject.toml: tool.forkfirst: expected `object`, got `int`" in refuse(home).err
    write(home, "tool = 3  # [tool.forkfirst]\n", "pyproject.toml")
    done = home.forkfirst("start")
    assert (done.status, done.err) == (
        64,
        f"forkfirst: {home.directory}/pyproject.toml declares no service\n",
    )


def test_a_named_file_that_is_not_there(home: Home) -> None:
    """The name that was given, and why."""
    done = refuse(home, "--config", "nosuch.toml")
    assert (
        done.err
        == f"forkfirst: cannot read {home.directory}/nosuch.toml: no such file or directory\n"
    )


def test_a_service_that_the_file_does_not_have(home: Home) -> None:
    """64, and those that it has."""
    write(home, TWO)
    done = home.forkfirst("start", "three")
    assert done.status == 64
    assert done.err == (
        f'forkfirst: no service "three" in {home.directory}/forkfirst.toml\n'
        "  it declares one, two\n"
    )


@pytest.mark.real
@pytest.mark.parametrize("name", ["forkfirst.toml", "pyproject.toml"])
def test_a_file_that_may_not_be_read(home: Home, name: str) -> None:
    """As a user who may not."""
    home.directory.chmod(0o755)
    write(home, TWO, name)
    (home.directory / name).unlink()
    (home.directory / name).mkdir()
    done = home.forkfirst("start", "--config", name, uid=NOBODY)
    assert done.status == 78
    assert f"cannot read {home.directory}/{name}: is a directory" in done.err


FLAGS = {
    ("--listen", "web=nowhere:x"): "command line: --listen: ",
    ("--umask", "8"): "command line: --umask: expected an octal number such as 027, got '8'",
    ("--ready-timeout", "soon"): "command line: --ready-timeout: expected seconds",
    ("--ready-timeout", "0"): "ready",
    ("--grace-period", "nan"): "grace",
    ("--log-size", "1XB"): "command line: --log-size: expected bytes",
    ("--env-file", "nosuch"): "command line: --env-file: cannot read ",
    ("--env", "=x"): "'' cannot name an environment variable",
    ("--runtime", "curio"): "runtime 'curio' is not one of",
    ("--name", "a/b"): "'a/b' cannot name a service",
    ("--name", "."): "'.' cannot name a service",
    ("--name", "x" * 65): "cannot name a service: expected 1 to 64",
}


@pytest.mark.parametrize("flag", FLAGS, ids=" ".join)
def test_a_wrong_flag_is_one_line(home: Home, flag: tuple[str, str]) -> None:
    """The same rules, and the flag in place of the key."""
    done = refuse(home, "app.py", *flag)
    assert FLAGS[flag] in done.err


def test_a_wrong_line_of_an_environment_file_is_named(home: Home) -> None:
    """With its number."""
    home.program("vars", "A=1\n\n# comment\nnonsense\n")
    done = refuse(home, "app.py", "--env-file", "vars")
    assert f"{home.directory}/vars:4: expected NAME=VALUE, got 'nonsense'" in done.err


# -- the same, as laws ----------------------------------------------------------------------------

ORIGIN = config.Origin("test", "/here")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


@given(st.integers(1, 10_000), st.sampled_from(sorted(UNITS)))
def test_seconds_mean_what_they_say(number: int, unit: str) -> None:
    """With every unit and without one."""
    declared = config.make_declaration(
        "a", [({"target": "a:b", "ready-timeout": f"{number}{unit}"}, ORIGIN)]
    )
    assert declared.ready_seconds == pytest.approx(number * UNITS[unit])


SIZES = {"": 1, "K": 2**10, "KiB": 2**10, "KB": 2**10, "M": 2**20, "MiB": 2**20, "G": 2**30}


@given(st.integers(0, 10_000), st.sampled_from(sorted(SIZES)))
def test_sizes_mean_what_they_say(number: int, unit: str) -> None:
    """A kilobyte of a log has 1024 bytes here, however it is written."""
    declared = config.make_declaration(
        "a", [({"target": "a:b", "log-size": f"{number}{unit}"}, ORIGIN)]
    )
    assert declared.log_size == number * SIZES[unit]


KEYS = st.sampled_from(
    ["ready-timeout", "grace-period", "settle", "log-size", "umask", "listen", "name", "runtime"]
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(KEYS, st.text(max_size=12))
def test_any_text_is_taken_or_refused(key: str, text: str) -> None:
    """Never an error of ours: whatever a person types is either meant or explained."""
    value = [text] if key == "listen" else text
    layer = {"target": "a:b"} if key == "name" else {"target": "a:b", key: value}
    try:
        config.make_declaration(text if key == "name" else "a", [(layer, ORIGIN)])
    except errors.ConfigError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


def test_a_later_layer_is_over_an_earlier_one() -> None:
    """A target replaces a command, and a command a target."""
    file = ({"command": ["sleep", "1"], "chdir": "x", "env": {"A": "1"}}, config.Origin("f", "/f"))
    flags = ({"target": "app.py:main", "chdir": None, "env": {"B": "2"}}, ORIGIN)
    declared = config.make_declaration("a", [file, flags])
    assert (declared.command, declared.target) == ((), "/here/app.py:main")
    assert (declared.directory, declared.environment) == ("/f/x", (("A", "1"), ("B", "2")))


def test_a_command_is_found_where_it_was_meant(tmp_path: Path) -> None:
    """A path is relative to the file; a bare name is looked up on PATH when it is run."""
    origin = config.Origin("f", str(tmp_path))
    relative = config.make_declaration("a", [({"command": ["./run", "./x"]}, origin)])
    assert relative.command == (f"{tmp_path}/run", "./x")
    assert config.make_declaration("a", [({"command": ["run"]}, origin)]).command == ("run",)
