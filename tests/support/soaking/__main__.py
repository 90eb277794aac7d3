"""Soaks a service from beside it: `python -m support.soaking PLACE DIRECTORY SECONDS SEED`."""

from __future__ import annotations

import sys
from pathlib import Path

from support.service_home import Home
from support.soaking import places, soak


def main() -> None:
    """Do what the arguments say; a failure is the traceback."""
    name, directory, seconds, seed = sys.argv[1:]
    place = places.PLACES[name](Home(Path(directory)))
    soak.run(soak.Soak(place, seed), float(seconds), print)


main()
