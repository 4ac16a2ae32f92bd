"""YAML files as checked documents; every complaint names file, line and field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from cdi_cli.documents.document import Document, DocumentError
from cdi_cli.documents.kinds import KINDS

FieldPath = tuple[str | int, ...]
_SUFFIXES: Final = (".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """Safe, and dates stay text: a JSON Schema has no dates."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_documents(paths: Iterable[Path]) -> list[Document]:
    """The documents of files and, in the order of names, of the YAML files of directories.

    Raises:
        DocumentError: all that is wrong, one line each; nothing is returned then.
    """
    documents: list[Document] = []
    complaints: list[str] = []
    places: dict[tuple[str, str, str], str] = {}
    for file in _files(paths):
        for value, lines in _values(file):
            checked = _checked(file, value, lines)
            if not isinstance(checked, str):
                place, key = f"{file}:{lines[()]}", (checked.kind, checked.metadata.workspace, checked.metadata.name)
                if key in places:
                    checked = f"{place}: {key[0]} {key[2]} is given twice, first at {places[key]}"
                else:
                    places[key] = place
            if isinstance(checked, str):
                complaints.append(checked)
            else:
                documents.append(checked)
    if complaints:
        raise DocumentError("\n".join(complaints))
    return documents


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.rglob("*") if each.suffix in _SUFFIXES)
            if not found:
                raise DocumentError(f"{path}: holds no YAML file")
            yield from found
        elif path.exists():
            yield path
        else:
            raise DocumentError(f"{path}: does not exist")


def _values(file: Path) -> Iterable[tuple[Any, Mapping[FieldPath, int]]]:
    """Each document of a file with the lines of its fields; empty documents are left out."""
    try:
        with file.open("rb") as stream:
            loader = _Loader(stream)
            try:
                while loader.check_node() and (node := loader.get_node()) is not None:
                    lines = dict(_lines(node, (), file))
                    value = loader.construct_document(node)
                    if value is not None:
                        yield value, lines
            finally:
                loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DocumentError(f"{file}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, OSError) as error:
        raise DocumentError(f"{file}: cannot be read: {error}") from error


def _lines(node: yaml.Node, path: FieldPath, file: Path) -> Iterable[tuple[FieldPath, int]]:
    """The line, from 1, of everything in a document. A key that stands twice in a mapping is an error, which YAML itself lets pass."""
    yield path, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise DocumentError(f"{file}:{key.start_mark.line + 1}: {_dotted((*path, key.value))} is given twice")
            seen.add(key.value)
            for inner, line in _lines(value, (*path, key.value), file):
                yield inner, key.start_mark.line + 1 if inner == (*path, key.value) else line
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*path, index), file)


def _checked(file: Path, value: Any, lines: Mapping[FieldPath, int]) -> Document | str:
    """The document, or what is wrong with it."""
    if not isinstance(value, dict):
        return f"{file}:{lines[()]}: a document is a mapping with apiVersion, kind, metadata and spec"
    kind = value.get("kind")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        return f"{file}:{_line(lines, ('kind',))}: kind: expected one of {', '.join(sorted(KINDS))}"
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [(_line(lines, each["loc"]), _dotted(each["loc"]), _text(each["msg"])) for each in error.errors(include_input=False)]
        return "\n".join(f"{file}:{line}: {field}: {text}" for line, field, text in sorted(found))


def _line(lines: Mapping[FieldPath, int], path: FieldPath) -> int:
    """The line of a field; of the nearest thing around it when the field is missing."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _dotted(path: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _text(message: str) -> str:
    return "unknown field" if message.startswith("Extra inputs") else message.removeprefix("Value error, ")
