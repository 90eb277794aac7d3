"""What makes a fork unsafe: find it, name it, say what to do."""
