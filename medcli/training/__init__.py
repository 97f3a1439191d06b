"""How a network learns: one loop, and the parts it is put together from."""

import os

if os.environ.get("WORLD_SIZE", "1") != "1":
    # Every process would warn that it looks for parameters without a gradient and finds none: it has to look (`join`).
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
