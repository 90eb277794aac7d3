"""argv to command to exit status."""
