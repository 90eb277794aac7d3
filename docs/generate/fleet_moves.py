"""The page of the states that workers, generations and the fleet can be in, from their tables."""

from __future__ import annotations

from forkfirst.plan.fleet.state import list_moves

_NOTE = "<!-- Made by docs/generate from the code. Change the code, then run `make docs`. -->\n"

_SUBJECTS = {
    "fleet": "The fleet: all workers of one service",
    "generation": "A generation: the workers of one start or one reload",
    "worker": "A worker",
}


def write_moves() -> str:
    """Return the page: one diagram for each kind of thing that has states."""
    parts = [
        _NOTE,
        "# The states of workers\n",
        "What the supervisor decides is decided by one pure function over these states, in",
        "`plan/fleet/machine.py`, and no state changes but by one of these moves: the diagrams are",
        "drawn from the tables that it uses. [How a reload works](../explanation/reload.md) tells",
        "the story.\n",
    ]
    for subject, title in _SUBJECTS.items():
        parts += [f"## {title}\n", "```mermaid", "stateDiagram-v2"]
        moves = [move[1:] for move in list_moves() if move[0] == subject]
        parts.append(f"    [*] --> {moves[0][0]}")
        parts += [f"    {source} --> {target}: {cause}" for source, cause, target in moves]
        parts += ["```\n", "| in | when | then |", "| --- | --- | --- |"]
        parts += [f"| {source} | {cause} | {target} |" for source, cause, target in moves]
        parts.append("")
    return "\n".join(parts)
