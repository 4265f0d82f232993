"""Manifests for tests: made by hand, or drawn by hypothesis."""

from __future__ import annotations

from hashlib import sha256

from hypothesis import strategies as st

from git_theta_ext.core.names import natural_key
from git_theta_ext.core.tensors import DTYPES, INLINE_BYTES, TensorInfo, cut
from git_theta_ext.manifest.model import (
    BASE,
    VERSIONS,
    Block,
    Chain,
    Entry,
    Manifest,
    Parent,
    Recipe,
    UpdateRef,
)
from git_theta_ext.manifest.rules import CHUNK_BYTES
from git_theta_ext.manifest.text import lowest_version


def hexdigest(label: object) -> str:
    """A SHA-256 that depends on nothing but the label."""
    return sha256(str(label).encode()).hexdigest()


def block(nbytes: int, label: object, chain: tuple[UpdateRef, ...] | None = None) -> Block:
    """A block whose bytes, hash and (if not given) dense parameter file follow from the label."""
    if nbytes <= INLINE_BYTES:
        data = sha256(str(label).encode()).digest() * 2
        return Block(nbytes, sha256(data[:nbytes]).hexdigest(), (), data[:nbytes])
    dense = UpdateRef("dense", hexdigest(f"dense {label}"), nbytes // 2)
    return Block(nbytes, hexdigest(label), chain or (dense,))


def entry(
    name: str, label: object = 0, dtype: str = "F32", shape: tuple[int, ...] = (30,)
) -> Entry:
    """An entry of a tensor, cut into its blocks."""
    info = TensorInfo(name, DTYPES[dtype], shape)
    return Entry(info, tuple(block(s.nbytes, (label, i)) for i, s in enumerate(cut(info))))


def manifest(*entries: Entry, skeleton: object = "skeleton") -> Manifest:
    """A manifest of these entries, sorted."""
    ordered = sorted(entries, key=lambda each: natural_key(each.tensor.name))
    return Manifest("safetensors", block(1000, skeleton), tuple(ordered))


digests = st.integers(0, 2**256 - 1).map(lambda value: f"{value:064x}")
_WORDS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
_INFO = st.dictionaries(_WORDS, st.text("09az.%=,", min_size=1, max_size=6), max_size=3)


@st.composite
def refs(draw: st.DrawFn) -> UpdateRef:
    """A parameter file, an object or a part of one."""
    kind = draw(st.sampled_from(["dense", "delta", "low-rank", "patch", "merge", "x2"]))
    size = draw(st.integers(0, 2**63 - 1))
    part = None
    if size > 2 and draw(st.booleans()):
        start = draw(st.integers(1, size - 1))
        part = start, draw(st.integers(start + 1, size))
    return UpdateRef(kind, draw(digests), size, tuple(draw(_INFO).items()), part)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """A merge of other chains."""
    sides = draw(
        st.lists(_WORDS.filter(lambda one: one != BASE), min_size=2, max_size=4, unique=True)
    )
    names = [*([BASE] if draw(st.booleans()) else []), *sides]
    chains = st.lists(refs(), min_size=1, max_size=2)
    return Recipe(
        draw(_WORDS),
        draw(st.integers(0, 2**63 - 1)),
        tuple(draw(_INFO).items()),
        tuple(Parent(name, tuple(draw(chains))) for name in names),
    )


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """What a block is made of."""
    files = tuple(draw(st.lists(refs(), min_size=1, max_size=3)))
    return (draw(recipes()), *files[1:]) if draw(st.integers(0, 4)) == 0 else files


@st.composite
def blocks(draw: st.DrawFn, nbytes: int) -> Block:
    """A block of this length."""
    if nbytes <= INLINE_BYTES:
        data = draw(st.binary(min_size=nbytes, max_size=nbytes))
        return Block(nbytes, sha256(data).hexdigest(), (), data)
    return Block(nbytes, draw(digests), draw(chains()))


@st.composite
def entries(draw: st.DrawFn, name: str) -> Entry:
    """An entry of this name: any dtype, shape, order; opaque ones too."""
    if draw(st.integers(0, 4)) == 0:
        sizes = draw(st.lists(st.integers(1, CHUNK_BYTES), max_size=3)) or [0]
        if sum(sizes) <= INLINE_BYTES:
            sizes = [sum(sizes)]
        info = TensorInfo(name, DTYPES["U8"], (sum(sizes),))
        return Entry(info, tuple(draw(blocks(size)) for size in sizes), opaque=True)
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    if draw(st.integers(0, 9)) == 0:
        shape = (draw(st.integers(1, 9)), 10_000_019)
    order = tuple(draw(st.permutations(range(len(shape)))))
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    info = TensorInfo(name, dtype, shape, order if list(order) != sorted(order) else None)
    return Entry(info, tuple(draw(blocks(spec.nbytes)) for spec in cut(info)))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest."""
    names = draw(st.sets(st.text(st.characters(codec="utf-8"), max_size=6), max_size=5))
    body = tuple(draw(entries(name)) for name in sorted(names, key=natural_key))
    skeleton = draw(st.integers(0, 200).flatmap(blocks))
    return Manifest(
        draw(st.sampled_from(["safetensors", "pytorch", "opaque", "x.y-z_1"])),
        skeleton,
        body,
        draw(st.integers(lowest_version(body, skeleton), VERSIONS[-1])),
    )
