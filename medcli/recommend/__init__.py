"""Which architecture to try first: what documents and published comparisons say, as data, and an engine that ranks."""
