"""What is installed: entry points, then cards, then factories; problems are values, and nothing here imports torch."""
