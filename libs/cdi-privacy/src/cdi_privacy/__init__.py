"""How a service obeys privacy orders: read from PRIVACY, done by the service's ``Keeper``, reported to consent, then acknowledged.

Five services do exactly this and must agree on it, and it has domain words, so it is neither theirs nor the runtime's. Consumes PRIVACY;
calls ``cdi.consent.v1.PrivacyService``; owns nothing. Invariants: an order is acknowledged only when what it asks for is durable and
reported; everything may be done again. Deliberately absent: SQL, and what a store holds: that is each service's own ``privacy`` adapter.
"""

from cdi_privacy.clients import PrivacyClient
from cdi_privacy.digests import digest_of
from cdi_privacy.keeper import Holding, Keeper, Step, done, erases
from cdi_privacy.nothing_held import NothingHeld
from cdi_privacy.obeying import obeying

__all__ = ["Holding", "Keeper", "NothingHeld", "PrivacyClient", "Step", "digest_of", "done", "erases", "obeying"]
