"""Migrations of the enrichment database."""
