"""What is told from the texts of manifests is what parsing all of them tells."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.core.errors import ManifestError
from git_theta_ext.core.tensors import DTYPES, TensorInfo
from git_theta_ext.manifest.block_index import (
    SKELETON,
    BlockIndex,
    FormIndex,
    TensorIndex,
    blocks_of,
    form_of,
    traits_of,
)
from git_theta_ext.manifest.model import Entry, Manifest
from git_theta_ext.manifest.text import Parser, _read_whole, manifest_bytes, parse_manifest
from tests.scenarios.manifests import block, entry, manifest, manifests

several = st.lists(manifests(), max_size=4)


def texts(found: Iterable[Manifest]) -> dict[str, bytes]:
    """Manifests by a name."""
    return {str(number): manifest_bytes(one) for number, one in enumerate(found)}


@settings(deadline=None, max_examples=60)
@given(several)
def test_every_block_is_found_in_the_first_manifest_that_has_it(found: list[Manifest]) -> None:
    named = texts(found)
    index = BlockIndex(named.items(), named.get)
    expected = {}
    for one in reversed(found):
        expected |= blocks_of(one)
    assert {key: index.get(key) for key in expected} == expected
    keys = ((f"{number:064x}", SKELETON) for number in range(len(expected) + 1))
    assert index.get(next(key for key in keys if key not in expected)) is None
    assert all(index.get((sha256, "none")) is None for sha256, _ in expected)


@settings(deadline=None, max_examples=60)
@given(several)
def test_a_manifest_is_found_by_its_own_tensors(found: list[Manifest]) -> None:
    named = texts(found)
    index = TensorIndex(named.items())
    for one in found:
        tensors = [each.tensor for each in one.entries if not each.opaque]
        nearest = index.nearest(tensors)
        if not tensors:
            assert nearest is None
            continue
        assert nearest is not None
        there = parse_manifest(named[nearest]).entries
        assert traits_of(each.tensor for each in there if not each.opaque) == traits_of(tensors)


def test_the_manifest_that_shares_most_is_found_and_of_equals_the_first() -> None:
    def of(*names: str) -> Manifest:
        return manifest(*(entry(name) for name in names))

    named = texts([of("a", "b"), of("a", "b", "c"), of("b", "c", "d"), of("x", "y")])
    index = TensorIndex(named.items())

    def nearest(*names: str) -> str | None:
        return index.nearest([entry(name).tensor for name in names])

    assert nearest("a", "b", "c", "e") == "1"
    assert nearest("b", "c", "e") == "1"
    assert nearest("a", "b", "z", "w", "v", "u") is None
    assert nearest("x", "z") == "3"
    assert nearest("b", "z") == "0"


def test_axes_in_another_order_are_compared_as_they_lie_in_memory() -> None:
    info = TensorInfo("a", DTYPES["F32"], (5, 4), (1, 0))
    one = manifest(Entry(info, (block(80, 0),)))
    index = TensorIndex(texts([one]).items())
    assert index.nearest([TensorInfo("a", DTYPES["F32"], (4, 5))]) == "0"
    assert index.nearest([TensorInfo("a", DTYPES["F32"], (5, 4))]) is None


@settings(deadline=None, max_examples=60)
@given(several)
def test_a_few_blocks_of_each_form_are_found(found: list[Manifest]) -> None:
    named = texts(found)
    index = FormIndex(named.items(), lambda name: parse_manifest(named[name]))
    expected: dict[tuple[str, int, int], dict[str, object]] = {}
    for one in found:
        for each in one.entries:
            for position, each_block in enumerate(() if each.opaque else each.blocks):
                alike = expected.setdefault(form_of(each.tensor, position), {})
                if each_block.chain and len(alike) < 8:
                    alike.setdefault(each_block.sha256, each_block)
    assert index.find(expected) == {form: list(alike.values()) for form, alike in expected.items()}
    assert index.find([("F32", 0, 99)]) == {("F32", 0, 99): []}


@settings(deadline=None, max_examples=200)
@given(st.lists(manifests(), min_size=1, max_size=3), st.data())
def test_a_reader_of_several_says_what_one_of_each_does(
    found: list[Manifest], data: st.DataObject
) -> None:
    parser = Parser()
    for one in (*found, *found):
        lines = manifest_bytes(one).split(b"\n")
        for _ in range(data.draw(st.integers(0, 2))):  # spoilt, or left as it is
            at = data.draw(st.integers(0, len(lines) - 1))
            other = data.draw(st.sampled_from([*lines, b"", b"end", b"tensor a"]))
            lines[at : at + 1] = data.draw(st.sampled_from([[], [other], [lines[at], other]]))
        text = b"\n".join(lines)
        outcomes: list[object] = []
        for read in (parser.parse, lambda text: _read_whole(text.decode("latin-1"))):
            try:
                outcomes.append(read(text))
            except ManifestError as error:
                outcomes.append(error.message)
        assert outcomes[0] == outcomes[1]
