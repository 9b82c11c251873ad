"""The embedded stack: Kafka, Postgres and S3 as plain processes, and the supervisor that keeps them and the services up."""
