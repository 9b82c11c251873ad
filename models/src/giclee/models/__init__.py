"""The shapes world, its oracle, and the demo models trained on it. Importing it loads nothing heavy."""
