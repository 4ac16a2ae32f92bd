"""The kinds of destinations: one file each, listed in ``registry``."""
