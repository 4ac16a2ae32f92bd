"""Signals of consent: what a person's choice looks like in each standard, read into answers to keys.

One module per standard, an explicit registry (``registry.read``), no I/O. A signal that cannot be read says nothing and why; it never
raises. What answers mean for a workspace is not decided here: purposes name the keys. docs/consent-signals.md lists keys, rules, sources.
"""
