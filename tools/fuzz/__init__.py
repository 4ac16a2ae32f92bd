"""Coverage-guided fuzzing of everything that reads what a stranger sends (``make fuzz``); ``decoders`` says what must hold."""
