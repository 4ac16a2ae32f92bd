"""The state of the service in Postgres."""
