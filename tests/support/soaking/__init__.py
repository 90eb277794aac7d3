"""The soak: one service under load, everything done to it, and books; see `places` for where."""
