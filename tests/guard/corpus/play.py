"""Plays one state in this process: `play.py HOME STATE REPORT`, a descriptor to write to."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

sys.path[0] = __file__.rpartition("/guard/")[0]  # the tests, as pytest has them, too

from guard.corpus.registry import STATES, ForkPoint  # noqa: E402 - found through the line above

home, name, report = sys.argv[1:]
fork = ForkPoint(int(report))
importlib.import_module(f"guard.corpus.{home}")
try:
    STATES[name].play(fork)
except SystemExit:
    if fork.is_child:
        raise  # a child that leaves the ordinary way is what some states are about
except BaseException:  # noqa: BLE001 - whatever it is, it is the outcome
    traceback.print_exc()
    sys.stderr.flush()
    if not fork.is_child:
        fork.say("parent 1")
    os._exit(1)
fork.finish()
