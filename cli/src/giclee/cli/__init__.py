"""The `giclee` command. Thin: a verb calls the library that owns the matter; it is a file and a row in `__main__`."""
