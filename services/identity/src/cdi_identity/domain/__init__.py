"""What identity decides: which identifiers count, which profile an event belongs to, which profiles are one person, which trait stands.

Pure: no I/O, no clock, no randomness (fresh profile ids are handed in). Source of the algorithm: Segment's identity resolution rules.
"""
