"""gRPC in: one module per service of ``cdi.warehouse.v1``."""
