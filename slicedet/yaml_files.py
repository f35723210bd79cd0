"""Reads YAML that is not trusted: bounded before anything is built of it, and refused in one line. Knows no model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicedet.errors import SlicedetError

if TYPE_CHECKING:
    from yaml import Node, SafeLoader

LARGEST = 1 << 20
"""Bytes of a file. Written out, aliases and all, it may have twice as many: values and their characters are counted."""

_DEEPEST = 100
_LONGEST = 100
"""Characters of a number, a date or another value that is no text: long ones take time that grows as their square."""


def read(path: Path, error: type[SlicedetError], loader: type[SafeLoader] | None = None) -> Any:
    """The content of a YAML file in UTF-8. Raises `error`, in one line that names the file.

    loader: yaml.SafeLoader, or a child of it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        return parsed(data.decode("utf-8-sig"), loader)
    except (OSError, ValueError) as problem:
        raise error(f"{path}: not a readable YAML file ({' '.join(str(problem).split())})") from problem


def parsed(text: str, loader: type[SafeLoader] | None = None) -> Any:
    """The content of a text in YAML. Raises ValueError, in one line, for what is none, or grows when it is written
    out."""
    import yaml

    # Values that are not of the type their tag says make the package raise all of these.
    odd = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
    try:
        reading = (loader or yaml.SafeLoader)(text)
        node = reading.get_single_node()
        if node is None:
            return None
        _check(node)
        return reading.construct_document(node)
    except odd as error:
        known = isinstance(error, yaml.YAMLError | RecursionError | ValueError)
        reason = str(error) if known else "a value is not what its tag says"
        raise ValueError(" ".join(reason.split())[:200]) from error


def _check(document: Node) -> None:
    """Raises ValueError for a document that would take more memory or time than a file of its size should.

    Nodes that aliases repeat count each time; of them merge keys, too, make as many values as they stand for.
    """
    import yaml

    left = 2 * LARGEST
    nodes = [(document, 0)]
    while nodes:
        node, depth = nodes.pop()
        if depth > _DEEPEST:
            raise ValueError(f"line {node.start_mark.line + 1}: more than {_DEEPEST} levels")
        left -= 1 + len(node.value)
        if left < 0:
            raise ValueError("its aliases make too much of it")
        if isinstance(node, yaml.ScalarNode):
            if len(node.value) > _LONGEST and node.tag != "tag:yaml.org,2002:str":
                raise ValueError(f"line {node.start_mark.line + 1}: a value too long for what is no text")
        else:
            parts = (
                node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
            )
            nodes += [(part, depth + 1) for part in parts]
