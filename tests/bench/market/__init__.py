"""A market of providers made from a seed, and policies that buy images on it: what `make bench-router` measures."""
