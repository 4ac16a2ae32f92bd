"""gRPC in: convert, ask the application, convert."""

from cdi_consent.servicer.consent import FULL_NAME, ConsentServicer
from cdi_consent.servicer.privacy import FOR_SERVICES, PrivacyServicer

__all__ = ["FOR_SERVICES", "FULL_NAME", "ConsentServicer", "PrivacyServicer"]
