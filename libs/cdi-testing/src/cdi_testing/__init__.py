"""What the tests of CDI stand on: real servers and services as fixtures, builders of valid events, waiting without sleeping.

The pytest plugin ``cdi_testing.plugin`` gives the fixtures. Deliberately absent: fakes of our own code; a fake lives beside
its twin and passes the same conformance suite.
"""

from cdi_testing.eventually import eventually, eventually_sync

__all__ = ["eventually", "eventually_sync"]
