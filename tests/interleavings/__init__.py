"""All handlers in one process, and a seeded scheduler that decides after every effect what happens next."""
