"""Reference data that comes with the service. Facts only; the origin and licence of each file stands beside it."""
