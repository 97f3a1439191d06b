"""One page a reader can open from disk: what was done, how well it works, where it fails; no network library needed."""
