"""What the line stands on: the local stack (`local`), the topics and the migrations. Called by the command line and by tests."""
