"""What the fields of documents are made of. Their names are those of the protos in camel case; nothing unknown is let through."""

from __future__ import annotations

import os
import re
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


def _resolved(value: object) -> object:
    """The value behind ``env:NAME`` in the environment of the command; any other value as it is."""
    if not isinstance(value, str) or not value.startswith("env:"):
        return value
    if not _REFERENCE.fullmatch(value):
        raise ValueError("expected env:NAME")
    found = os.environ.get(value.removeprefix("env:"))
    if not found:
        raise ValueError(f"the environment has no {value.removeprefix('env:')}")
    return found


def _reference(value: object) -> object:
    """A secret that is passed on by name; its service reads it."""
    if isinstance(value, str) and not _REFERENCE.fullmatch(value):
        raise ValueError("a secret is given by reference: env:NAME")
    return value


Resolved = Annotated[str, BeforeValidator(_resolved), Field(min_length=1)]
Reference = Annotated[str, BeforeValidator(_reference)]
Url = Annotated[str, BeforeValidator(_resolved), Field(pattern=r"^https?://\S+$")]
Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0, lt=1 << 31)]
"""A whole number that fits every whole number of the protos; 0 mostly stands for the service's default."""
EventType = Literal["track", "identify", "page", "screen", "group", "alias"]


class Strict(BaseModel):
    """A part of a document."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)


class Metadata(Strict):
    """Whose document it is."""

    workspace: Name = "main"
    name: Name


class WorkspaceMetadata(Strict):
    """Whose document it is, of a kind of which a workspace has one."""

    workspace: Name = "main"
    name: Literal["default"] = "default"
