"""How: the protocols of the service manager."""
