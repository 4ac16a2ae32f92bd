"""The gRPC API's messages ↔ domain."""
