"""CDI collector: the public door for events, HTTP and gRPC."""
