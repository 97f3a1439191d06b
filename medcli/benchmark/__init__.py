"""Fair speed and fair accuracy: every architecture measured alone, in a fresh interpreter, under the same protocol."""
