"""A container from another package: `EXAMPLE!`, a count, then float32 values."""

from git_theta_ext.core.errors import FormatError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.formats.base import Layout, Literal, Source, Span

MAGIC = b"EXAMPLE!"


def sniff(head: bytes, source: Source) -> bool:
    """Whether the file begins with the magic."""
    return head.startswith(MAGIC)


def layout(source: Source) -> Layout:
    """The header as a literal, then one tensor."""
    count = int.from_bytes(source.read(8, 8), "little")
    if 16 + 4 * count != source.size:
        raise FormatError(f"offset 8: {count} values do not fill {source.size - 16} bytes")
    tensor = Span(TensorInfo("values", DTYPES["F32"], (count,)))
    return Layout("example", (Literal(source.read(0, 16)), tensor))
