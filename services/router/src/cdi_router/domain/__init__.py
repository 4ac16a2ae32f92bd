"""What the router decides, as functions of their arguments. Deliberately absent: I/O, the clock, chance."""
