"""A plugin package to start from: what `plugins new` writes, rendered from the text files in `templates`."""
