"""What is done by an interpreter that was executed for it, where a fork would not be safe."""
