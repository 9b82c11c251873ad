"""Intake: the front door of Giclee."""
