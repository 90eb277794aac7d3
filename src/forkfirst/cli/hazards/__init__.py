"""What is unsafe about a fork: checked in a program, and shown live."""
