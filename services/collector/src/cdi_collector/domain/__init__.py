"""What the collector decides: is this JSON, is this an event, whose is it, when did it happen. Pure: no I/O, clock or randomness."""
