"""Gives each candidate to a chain of providers. Beside it runs `giclee.router.health`, whose numbers are advisory."""
