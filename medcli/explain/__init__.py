"""Where a network looks, and whether what it shows depends on what it has learned."""
