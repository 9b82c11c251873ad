"""Decides orders from stored facts, seals what passes, and publishes approvals and the one closing."""
