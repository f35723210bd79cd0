"""XML files into trees, with expat and without entities, so that no small file becomes a large one."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from slicedet.errors import InvalidDataset, UnsafeFile

_MOST_BYTES = 64 << 20


def parse(path: Path) -> Element:
    """The root of an XML file. Raises InvalidDataset where it is none, UnsafeFile where it declares entities."""

    def refuse(*_: object) -> None:
        raise UnsafeFile(f"{path}: declares XML entities, which annotations do not need; remove its DOCTYPE")

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidDataset(f"{path}: is larger than annotations of one image can be")
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except OSError as error:
        raise InvalidDataset(f"{path}: cannot be read ({error.strerror})") from error
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise InvalidDataset(f"{path}: is not valid XML ({error})") from error
