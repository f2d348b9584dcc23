"""What is acted in. Knows nothing of learning; imports `common`."""
