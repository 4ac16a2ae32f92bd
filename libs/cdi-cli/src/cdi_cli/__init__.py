"""The cdi command and the embedded servers behind it."""
