"""Whether this machine can do what medcli promises, line by line, each with what to do about it."""
