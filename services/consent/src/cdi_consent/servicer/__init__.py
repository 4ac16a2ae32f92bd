"""gRPC in: convert, ask the application, convert."""

from cdi_consent.servicer.consent import ConsentServicer
from cdi_consent.servicer.privacy import FOR_SERVICES, PrivacyServicer

__all__ = ["FOR_SERVICES", "ConsentServicer", "PrivacyServicer"]
