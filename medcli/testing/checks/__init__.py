"""What a plugin must keep to, one small function per promise; `table` says which apply to what."""
