"""Pytest plugin of CDI: loaded by the root pytest configuration, gives every suite real servers."""
