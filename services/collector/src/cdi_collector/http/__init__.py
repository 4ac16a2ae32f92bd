"""The HTTP door. ``registry`` lists the SDK families and their paths; a new family is one file and one line there."""
