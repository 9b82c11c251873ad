"""The contract: events, their parts, their topics and their wire form. Needs pydantic and nothing else."""
