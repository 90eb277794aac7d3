"""What a fleet of workers does, decided in one pure table: see `machine`."""
