"""Configuration as files: YAML documents, checked to the line and field, sent to the service that owns their kind.

Deliberately absent: templates, includes, deletion by omission. What a document means is decided by its service.
"""

from cdi_cli.documents.applying import APPLY_ORDER, Applied, apply_document
from cdi_cli.documents.models import Document, DocumentError
from cdi_cli.documents.reading import read_documents

__all__ = ["APPLY_ORDER", "Applied", "Document", "DocumentError", "apply_document", "read_documents"]
