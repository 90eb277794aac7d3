"""How: one manual-page topic a module."""
