"""What all kinds of documents have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from cdi_cli.documents.fields import Metadata, Strict, WorkspaceMetadata
from cdi_cli.peers import Peers


class DocumentError(RuntimeError):
    """A document is wrong; the text names file, line and field."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a service made of a document.

    Attributes:
        version: the document's version there.
        changed: false: it was like this already.
    """

    version: int
    changed: bool

    @property
    def outcome(self) -> str:
        """``created``, ``changed`` or ``unchanged``."""
        if not self.changed:
            return "unchanged"
        return "created" if self.version == 1 else "changed"


class Document(Strict):
    """A checked document of some kind."""

    api_version: Literal["cdi/v1"]
    kind: str
    metadata: Metadata | WorkspaceMetadata

    @abstractmethod
    async def apply(self, peers: Peers) -> Applied:
        """Sends it to the service that owns its kind.

        Raises:
            Fault: the service refused it or does not answer.
        """
