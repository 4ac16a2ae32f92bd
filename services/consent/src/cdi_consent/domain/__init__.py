"""The rules of consent as functions of their arguments, time included."""
