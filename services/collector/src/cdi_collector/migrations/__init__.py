"""Migrations of the collector's database; run by ``python -m cdi_collector migrate``."""
