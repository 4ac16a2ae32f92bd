"""Coverage-guided fuzzing of everything that reads what a stranger sends (``make fuzz``).

``decoders`` and ``signals`` say what must hold.
"""
