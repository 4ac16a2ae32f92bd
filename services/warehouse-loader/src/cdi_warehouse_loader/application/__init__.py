"""Use cases: loading what the streams bring, and serving documents, counts and queries."""
