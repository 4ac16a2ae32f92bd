"""The use cases of delivery: send in order (``courier``), new events (``live``), waiting events (``waiting``)."""
