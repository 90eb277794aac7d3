"""Holding sockets for somebody else's program: once, by exec, or over every edit of its files."""
