"""Under a manager: what it passed, and what it is told. Loaded only where there is one."""
