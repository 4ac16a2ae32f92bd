"""Configuration as files: YAML documents, checked to the line and field, sent to the service that owns their kind.

A module per service: its kinds, and the requests that they become. Deliberately absent: templates, includes, deletion by omission. What a
document means is decided by its service.
"""

from cdi_cli.documents.document import Applied, Document, DocumentError
from cdi_cli.documents.kinds import APPLY_ORDER
from cdi_cli.documents.reading import read_documents

__all__ = ["APPLY_ORDER", "Applied", "Document", "DocumentError", "read_documents"]
