"""The commands that hold sockets for a program, and start it anew on a save."""
