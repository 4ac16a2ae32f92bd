"""The spool: accepted events on the collector's own disk while NATS is away.

``segments.py`` is the files, ``log.py`` the durable queue on top of them, ``bus.py`` what the group commit publishes through.
Invariants: what was appended survives ``kill -9`` and a power cut; what is read comes in the order in which it was appended; nothing newer
is published before what waits here. Deliberately absent: a stored read position. A whole segment is deleted when JetStream has it, so
a crash while draining publishes at most one segment again, under the same message ids.
"""
