"""The router's Postgres: destinations (``documents``), deliveries (``deliveries``), what is read about them (``reports``).

SQL over the driver with arrays, one statement per kind of row whatever their number. ``memory`` is the twin for tests without a database.
"""
