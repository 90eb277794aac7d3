"""Whether a fork is safe now: what would break the child, who made it, what to do."""
