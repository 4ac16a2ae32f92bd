"""Real-process fixtures, builders and waiting for the tests of CDI."""
