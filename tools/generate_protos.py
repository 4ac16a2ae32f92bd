"""Generate the Python code of ``protos/`` into ``libs/cdi-protos/src/cdi``.

The proto root is the Python import root (package ``cdi``), so protoc's own imports are right and nothing is rewritten
afterwards. The tree is generated aside and swapped in whole: a removed message cannot leave a stale module behind.

``python -m tools.generate_protos`` writes, ``--check`` compares and exits 1 on drift.
"""

import argparse
import filecmp
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROTOS = REPOSITORY / "protos"
GENERATED = REPOSITORY / "libs" / "cdi-protos" / "src" / "cdi"
PACKAGE_DOCSTRING = '"""Generated from protos/ by `make protos`; not edited."""\n'


class ProtocError(RuntimeError):
    """protoc refused the protocol; the text is its own message."""


def proto_files() -> list[str]:
    """Every proto file of the protocol, relative to the proto root, sorted."""
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.glob("cdi/**/*.proto"))


def run_protoc(*options: str) -> None:
    """Run the pinned protoc over the whole protocol.

    Raises:
        ProtocError: a file does not compile.
    """
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"]
    command += [f"--proto_path={path}" for path in _include_folders()]
    command += [f"--plugin={name}={_script(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    result = subprocess.run([*command, *options, *proto_files()], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ProtocError(result.stderr.strip())


def generate(target: Path) -> None:
    """Write the generated package tree ``cdi`` as the folder ``target``."""
    with tempfile.TemporaryDirectory() as folder:
        run_protoc(
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            f"--mypy_out=quiet:{folder}",
            f"--mypy_grpc_out=quiet:{folder}",
        )
        tree = Path(folder) / "cdi"
        for package in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            (package / "__init__.py").write_text(PACKAGE_DOCSTRING)
        (tree / "py.typed").touch()
        _drop_empty_service_stubs(tree)
        shutil.copytree(tree, target)


def drift(expected: Path, found: Path) -> list[str]:
    """Files that differ between two trees, as readable lines."""
    wanted = _relative_files(expected)
    present = _relative_files(found)
    lines = [f"missing: {name}" for name in sorted(wanted - present)]
    lines += [f"stale:   {name}" for name in sorted(present - wanted)]
    lines += [f"differs: {name}" for name in sorted(wanted & present) if not filecmp.cmp(expected / name, found / name, shallow=False)]
    return lines


def swap(new: Path, current: Path) -> None:
    """Put ``new`` in the place of ``current`` by renames within one folder."""
    old = current.with_name(f".{current.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)


def _include_folders() -> list[Path]:
    """Where the well-known types and google/rpc/*.proto lie inside the installed wheels."""
    folders = [package_folder("grpc_tools") / "_proto"]
    # google is a namespace package: the folder above google/rpc is the include root.
    folders.append(package_folder("google.rpc").parent.parent)
    return folders


def package_folder(name: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ProtocError(f"package {name} is not installed: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))


def _script(name: str) -> Path:
    return Path(sysconfig.get_path("scripts")) / name


def _drop_empty_service_stubs(tree: Path) -> None:
    """Remove the _pb2_grpc modules of files without a service: protoc writes them all the same."""
    for module in tree.rglob("*_pb2_grpc.py"):
        if "class " not in module.read_text():
            module.unlink()
            module.with_suffix(".pyi").unlink(missing_ok=True)


def _relative_files(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file() and path.suffix in {".py", ".pyi", ".typed"}}


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when the committed code is stale")
    arguments = parser.parse_args()
    if not proto_files():
        print("protos/: no proto file")
        return 1
    new = GENERATED.with_name(f".{GENERATED.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        generate(new)
        if not arguments.check:
            swap(new, GENERATED)
            print(f"generated {GENERATED.relative_to(REPOSITORY)} from {len(proto_files())} files")
            return 0
        lines = drift(new, GENERATED)
    except ProtocError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(new, ignore_errors=True)
    if lines:
        print("generated code is stale; run `make protos`:", *lines, sep="\n  ", file=sys.stderr)
        return 1
    print("generated code is current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
