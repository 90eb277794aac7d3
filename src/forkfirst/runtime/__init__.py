"""Who runs the program: one file a runtime, the same shape each."""
