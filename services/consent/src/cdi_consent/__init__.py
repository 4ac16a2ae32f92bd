"""CDI consent: purposes, the ledger of decisions, evaluation in batches."""
