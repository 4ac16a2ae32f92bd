"""The decisions of the pipeline, as functions of their arguments: no I/O, no clock, no randomness, no logging."""
