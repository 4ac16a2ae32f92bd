"""CDI enrichment: dedupe, validate, consent, enrich, identity."""
