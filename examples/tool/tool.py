"""A command line whose commands talk to a daemon of their own, which starts when it is needed.

python tool.py ask remember colour blue    the first one starts the daemon: some 100 ms more
python tool.py ask recall colour           every other one finds it there
python tool.py daemon status
python tool.py daemon stop

A command is one connection: a JSON object a line, an answer a line. The daemon is in
`tool_daemon.py`, which this program never imports: a command stays as quick as it is small.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import forkfirst

VERSION = "1"
"""Changed with every change of the daemon: a command replaces one that is of another version."""

HOME = Path(os.environ.get("TOOL_HOME") or Path.home() / ".local" / "state" / "tool")

SERVICE = forkfirst.Service(
    program=f"{Path(__file__).with_name('tool_daemon.py')}:serve",
    name="tool",
    listen=(f"commands=unix:{HOME / 'commands.sock'}",),
    version=VERSION,
)


def ask(words: list[str]) -> int:
    """Send one request and print what the daemon answers; start it first if it does not run."""
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    with forkfirst.connect("tool", service=SERVICE, replace=True) as connection:
        connection.sendall(json.dumps({"ask": words[0], "words": words[1:]}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            answer = json.loads(lines.readline())
    if "error" in answer:
        print(f"tool: {answer['error']}", file=sys.stderr)
        return 1
    print(answer["answer"])
    return 0


def control(what: str) -> int:
    """Start, stop or look at the daemon, as a person who wants to know."""
    if what != "start":
        SERVICE.main([what])
    HOME.mkdir(mode=0o700, parents=True, exist_ok=True)
    started = forkfirst.ensure_running(SERVICE, replace=True)
    print(f"the daemon {'was started' if started.is_new else 'runs already'}, pid {started.pid}")
    return 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="A tool that remembers.")
    commands = parser.add_subparsers(dest="command", required=True)
    question = commands.add_parser("ask", help="remember NAME VALUE, recall NAME, or count")
    question.add_argument("words", nargs="+")
    daemon = commands.add_parser("daemon", help="what answers")
    daemon.add_argument("what", choices=("start", "stop", "status"))
    arguments = parser.parse_args()
    try:
        if arguments.command == "ask":
            return ask(arguments.words)
        return control(arguments.what)
    except forkfirst.ForkfirstError as error:
        print(f"tool: {error}", file=sys.stderr)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
