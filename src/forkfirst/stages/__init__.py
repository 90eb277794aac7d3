"""Does it, in order."""
