"""How a network learns: one loop, and the parts it is put together from."""
