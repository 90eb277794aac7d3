"""A program that fails before it is ready: its import does."""

import nosuch  # type: ignore[import-not-found]


async def main() -> None:
    """Never run."""
    nosuch.run()
