"""The `giclee` command. Thin: every verb calls the library that owns the matter. A verb is a file here and a row in `__main__`."""
