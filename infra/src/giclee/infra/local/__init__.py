"""The embedded stack: Kafka, Postgres and S3 as plain processes, and the supervisor of them and the services."""
