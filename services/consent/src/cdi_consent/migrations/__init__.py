"""Migrations of the consent database, run by ``python -m cdi_consent migrate``."""
