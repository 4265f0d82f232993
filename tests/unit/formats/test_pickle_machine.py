"""The pickle machine: plain values come out as they went in, everything else as records."""

import collections
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta_ext.core.errors import FormatError
from git_theta_ext.formats.pickles.machine import Call, Dict, Global, Persistent, Set, load

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=())) | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)  # fmt: skip


def plainly(value: Any) -> Any:
    if isinstance(value, Dict):
        return {key: plainly(item) for key, item in value.pairs}
    if isinstance(value, list | tuple):
        return type(value)(plainly(item) for item in value)
    if isinstance(value, Call) and isinstance(value.function, Global):
        if value.function.name == "encode":  # bytes in protocols 0 to 2
            return value.args[0].encode(value.args[1])
        if value.function.name == "bytes":
            return b""
    return value


@settings(deadline=None)
@given(plain, st.integers(1, 5))
def test_plain_values(value: Any, protocol: int) -> None:
    assert plainly(load(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", range(6))
def test_simple_values_in_every_protocol(protocol: int) -> None:
    value = [None, True, 7, -(2**70), 1.5, "text", {"k": (1,)}]
    assert plainly(load(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_objects_are_records(protocol: int) -> None:
    value = load(pickle.dumps(collections.OrderedDict(a=1), protocol))
    assert isinstance(value, Call)
    assert isinstance(value.function, Global)
    assert (value.function.module, value.function.name) == ("collections", "OrderedDict")
    assert value.pairs == [("a", 1)]


def test_sets_and_bytearrays() -> None:
    value = load(pickle.dumps({1}, 4))
    assert isinstance(value, Set)
    assert value.items == [1]
    assert load(pickle.dumps(bytearray(b"x"), 5)) == b"x"


def test_persistent_ids() -> None:
    assert load(b"Pabc\n.").key == "abc"
    assert isinstance(load(b"K\x07Q."), Persistent)


def test_shared_values_are_the_same_object() -> None:
    inner: list[int] = []
    first, second = load(pickle.dumps([inner, inner], 2))
    assert first is second


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80\x02", b"\x80\x06.", b".", b"0.", b"t.", b"\x85.", b"\xff.", b"h\x01.", b"Nq.",
        b"X\xff\xff\xff\x7fabc.", b"\x8d" + b"\xff" * 8 + b".", b"\x8b\xff\xff\xff\x7f.",
        b"I1_0\n.", b"I" + b"9" * 9000 + b"\n.", b"Fspam\n.", b"Sspam\n.", b"S'\n.",
        b"X\x01\x00\x00\x00\xff.", b"Nabuild.", b"}(Nu.", b"N(NNu.", b"Na.", b"NNa.", b"NNb.",
        b"NN\x93.", b"(o.", b"\x82\x01.", b"\x97.", b"cos\n", b"p-1\n.", b"Np-1\n.",
    ],
)  # fmt: skip
def test_damage_names_the_offset(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"pickle, offset \d+"):
        load(data)
