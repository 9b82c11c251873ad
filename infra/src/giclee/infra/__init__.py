"""What the line stands on: the local stack, the topics and the migrations. Called by the command line and tests."""
