"""gRPC in: one module per service of ``cdi.identity.v1``."""
