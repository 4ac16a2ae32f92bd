"""CDI router: delivery to destinations, isolated and in order per person."""
