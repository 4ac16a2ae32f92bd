"""What the consent service is told from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BeforeValidator, Field, SecretStr

from cdi.error.v1 import error_pb2
from cdi_kernel.faults import FailedPrecondition
from cdi_runtime.service import Listed, ServiceSettings


class Settings(ServiceSettings):
    """The common settings, the size of the pool and where identity is.

    Attributes:
        database_connections: the pool; one of them is held by the outbox relay, one by evaluation.
        remembered_ids: about how many user ids and anonymous ids are remembered between batches, a kilobyte each.
        identity_target: gRPC target of the identity service, for what a person allows by all ids, and for whose ids belong together.
        http_address: where privacy requests are taken over HTTP, ``host:port``; announced as ``http``. ``None`` (or empty): nowhere.
        privacy_token_hashes: SHA-256, in hexadecimal, of the tokens of privacy officers, separated by commas. None: nobody is one.
        privacy_key: what digests of ids are made with, at least 32 characters. ``None``: a key that is made once and kept in the database.
        privacy_signing_key_file: PEM file of the Ed25519 key that signs reports (PKCS 8). ``None``: as ``privacy_key``.
        privacy_second_look_seconds: from the last report of an erasure to telling all services once more.
        privacy_retell_seconds: how long a service has to report before it is told again; twice as long after each telling, at most an hour.
        privacy_archive_days: how long an archive is kept.
    """

    service_name: ClassVar[str] = "consent"
    migrations: ClassVar[str | None] = "cdi_consent.migrations"

    database_connections: int = Field(default=8, ge=3, le=100)
    remembered_ids: int = Field(default=20_000, ge=0, le=10_000_000)
    identity_target: str = "127.0.0.1:8083"
    http_address: Annotated[str | None, BeforeValidator(lambda given: given or None)] = None
    privacy_token_hashes: Listed = ()
    privacy_key: Annotated[Annotated[SecretStr, Field(min_length=32)] | None, BeforeValidator(lambda given: given or None)] = None
    privacy_signing_key_file: Annotated[Path | None, BeforeValidator(lambda given: given or None)] = None
    privacy_second_look_seconds: float = Field(default=60.0, ge=0.0, le=86_400.0)
    privacy_retell_seconds: float = Field(default=300.0, gt=0.0, le=3_600.0)
    privacy_archive_days: float = Field(default=14.0, gt=0.0, le=365.0)

    def signing_key(self) -> Ed25519PrivateKey | None:
        """What reports are signed with, if it is given.

        Raises:
            FailedPrecondition: the file is not there, or holds no such key.
        """
        if self.privacy_signing_key_file is None:
            return None
        try:
            key = load_pem_private_key(self.privacy_signing_key_file.read_bytes(), password=None)
        except (OSError, ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            reason = "CDI_PRIVACY_SIGNING_KEY_FILE is no PEM file of an Ed25519 key"
            raise FailedPrecondition(error_pb2.ERROR_REASON_INVALID_ARGUMENT, reason)
        return key
