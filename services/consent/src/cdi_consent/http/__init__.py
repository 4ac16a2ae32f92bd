"""HTTP in: privacy requests for whoever has no gRPC client, in the JSON form of the same messages."""
