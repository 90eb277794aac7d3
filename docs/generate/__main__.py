"""Writes the reference pages that the code itself knows best: `python docs/generate`.

With --check it writes nothing, names the pages that are not what the code says now, and exits 1.
A public name without a docstring is an error, so no page can be made that leaves one out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fleet_moves
import pages
import public_names

from forkfirst.guard import kinds

REFERENCE = Path(__file__).parents[1] / "reference"

PAGES = {
    "cli.md": pages.write_commands,
    "exit-statuses.md": pages.write_exit_statuses,
    "hazards.md": kinds.describe_kinds,
    "fleet.md": fleet_moves.write_moves,
    "steps.md": pages.write_steps,
    "python.md": public_names.write_public_names,
}


def main() -> int:
    """Write each page that changed, or only name it; return the exit status."""
    only_check = sys.argv[1:] == ["--check"]
    old = []
    for name, write in PAGES.items():
        path = REFERENCE / name
        text = write()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(name)
        if not only_check:
            path.write_text(text, encoding="utf-8")
    for name in old:
        print(f"docs/reference/{name}: {'is not up to date' if only_check else 'written'}")
    return 1 if only_check and old else 0


if __name__ == "__main__":
    sys.exit(main())
