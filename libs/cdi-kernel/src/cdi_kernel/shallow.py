"""Messages read only as far as a stage needs: their sub-messages stay the bytes that they arrived as.

A sub-message that is looked at costs an object per event, and most are the same for many events or only carried on. As bytes they can be
told apart, grouped and decoded once per distinct value.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_PACKAGE = "cdi.shallow"


def shallow(message: type[Message], levels: int = 1, *, only: Collection[str] | None = None) -> type[Message]:
    """A message class of the same wire format whose sub-messages are ``bytes`` and whose enums are numbers.

    What one class serializes the other one parses.

    Args:
        message: the generated class.
        levels: how many levels are messages: with 1 the fields of ``message`` itself that hold messages are bytes.
        only: the fields of the lowest level that the class knows; all if ``None``.
    """
    file = FileDescriptorProto(name=f"{_PACKAGE}/{message.DESCRIPTOR.full_name}.proto", package=_PACKAGE, syntax="proto3")
    _add(file, message.DESCRIPTOR, levels, only)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{message.DESCRIPTOR.name}"))


def _add(
    file: FileDescriptorProto,
    descriptor: Any,  # protobuf has two Descriptor classes, pure and native
    levels: int,
    only: Collection[str] | None,
) -> None:
    if any(known.name == descriptor.name for known in file.message_type):
        return
    made: DescriptorProto = file.message_type.add()
    descriptor.CopyToProto(made)
    made.ClearField("enum_type")
    if levels == 1 and only is not None:
        _keep(made, only)
    for field in made.field:
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            field.type = FieldDescriptorProto.TYPE_INT32
            field.ClearField("type_name")
        elif field.type == FieldDescriptorProto.TYPE_MESSAGE:
            if levels == 1:
                field.type = FieldDescriptorProto.TYPE_BYTES
                field.ClearField("type_name")
                _keep_presence(made, field)
            else:
                nested = descriptor.fields_by_name[field.name].message_type
                field.type_name = f".{_PACKAGE}.{nested.name}"
                _add(file, nested, levels - 1, only)


def _keep_presence(made: DescriptorProto, field: FieldDescriptorProto) -> None:
    """A sub-message that is there and empty is not one that is absent; in proto3 a field of bytes says so only when it is optional."""
    if field.label == FieldDescriptorProto.LABEL_OPTIONAL and not field.HasField("oneof_index"):
        field.proto3_optional = True
        field.oneof_index = len(made.oneof_decl)
        made.oneof_decl.add(name=f"_{field.name}")


def _keep(made: DescriptorProto, only: Collection[str]) -> None:
    """Takes out all other fields, and with them what groups fields of which one is set."""
    kept = [field for field in made.field if field.name in only]
    for field in kept:
        field.ClearField("oneof_index")
        field.ClearField("proto3_optional")
    del made.field[:], made.oneof_decl[:]
    made.field.extend(kept)
