"""The words and rules that every part of CDI shares: topology, faults, ids, time, the envelope of a bus message, redaction.

Pure: no I/O, no asyncio, no logging. Deliberately absent: anything that only one service needs.
"""
