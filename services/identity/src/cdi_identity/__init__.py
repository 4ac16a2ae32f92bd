"""CDI identity: the identity graph, resolved in batches."""
