"""Pickled dicts of bytes or of float32 arrays, read without ever unpickling.

Such pickles need a few opcodes that build dicts, text, numbers and tuples, and for an array name three things of NumPy
and apply them to a handful of arguments. This module knows these opcodes and names and no others, and takes an array's
dtype, shape and bytes as data: nothing that a value may hold can call or import anything.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from copgen_cli.errors import BrokenInputError


class _Name(Enum):
    """What of NumPy a pickle may name; only ever compared, never called."""

    RECONSTRUCT = "_reconstruct"
    """An empty array, which gets its contents afterwards: as protocol 4 writes arrays."""
    FROM_BUFFER = "_frombuffer"
    """An array with its contents: as protocol 5 writes them."""
    ARRAY = "ndarray"
    DTYPE = "dtype"


@dataclass(slots=True, eq=False)
class _Dtype:
    """float32; of which order of bytes, is said afterwards."""

    is_little_endian: bool = False


@dataclass(slots=True, eq=False)
class _Array:
    values: np.ndarray | None = None


_KNOWN = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Name.RECONSTRUCT for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Name.FROM_BUFFER for core in ("core", "_core")},
    ("numpy", "ndarray"): _Name.ARRAY,
    ("numpy", "dtype"): _Name.DTYPE,
}
_TEXT_AND_BYTES = {"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"}
_OF_ARRAYS = {"BININT", "BININT1", "BININT2", "BYTEARRAY8"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}
_MARK = object()
_MOST_OPCODES = 1000
_DEEPEST = 5000
"""A pickle puts a thousand entries on the stack at a time."""
_LITTLE_ENDIAN = (3, "<", None, None, None, -1, -1, 0)
"""State of the dtype `<f4`."""


def parse_bytes(data: bytes, name: str, *, hint: str) -> dict[str, bytes]:
    """The dict of text to bytes of a pickled value.

    Args:
        data: the pickle.
        name: of the value, for messages.
        hint: what to do about one that is refused.

    Raises:
        BrokenInputError: it holds another opcode, or is damaged.
    """
    return _parse(_Machine(bytes, arrays=False), data, name, hint, _MOST_OPCODES)


def parse_arrays(data: bytes, name: str, *, hint: str, is_table: bool = False) -> dict[str, np.ndarray]:
    """The dict of text to C-ordered little-endian float32 arrays of a pickled value, of protocol 4 or 5; see
    `parse_bytes`.

    Args:
        is_table: a dict of as many entries as it likes, not of a few modalities.
    """
    found = _parse(_Machine(_Array, arrays=True), data, name, hint, math.inf if is_table else _MOST_OPCODES)
    if any(array.values is None for array in found.values()):
        raise BrokenInputError(f"the value of {name} is refused: an array without contents", hint=hint)
    return {key: array.values for key, array in found.items()}


def _parse(machine: _Machine, data: bytes, name: str, hint: str, most_opcodes: float) -> dict[str, Any]:
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number > most_opcodes:
                raise ValueError(f"more than {most_opcodes} opcodes")
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
        (value,) = machine.stack
        if not isinstance(value, dict):
            raise ValueError("it is no dict")
    except (ValueError, IndexError, KeyError, TypeError, UnicodeError, OverflowError) as error:
        raise BrokenInputError(f"the value of {name} is refused: {error}", hint=hint) from error
    return value


@dataclass(slots=True)
class _Machine:
    """The stack and the memo of a pickle that is read."""

    kind: type
    """Of the values of its dicts."""
    arrays: bool
    """Whether arrays are admitted."""
    stack: list[Any] = field(default_factory=list)
    memo: dict[Any, Any] = field(default_factory=dict)

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one opcode.

        Raises:
            ValueError or others: it is none of those that are known, or does not fit what is there.
        """
        if opcode in _TEXT_AND_BYTES or (self.arrays and opcode in _OF_ARRAYS):
            self._push(argument)
        elif opcode in _BUILDING:
            _BUILDING[opcode](self, argument)
        elif self.arrays and opcode in _TUPLES:
            self._push(self._pop(_TUPLES[opcode]))
        elif self.arrays and opcode in _CONSTANTS:
            self._push(_CONSTANTS[opcode])
        elif self.arrays and opcode in _APPLYING:
            _APPLYING[opcode](self)
        elif opcode not in _NOTHING:
            raise ValueError(f"the opcode {opcode} is none of those that a database consists of")

    def _push(self, value: Any) -> None:
        if len(self.stack) >= _DEEPEST:
            raise ValueError("too much at a time")
        self.stack.append(value)

    def _pop(self, count: int) -> tuple[Any, ...]:
        if not 0 < count <= len(self.stack):
            raise ValueError("a tuple of what is not there")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def _after_mark(self) -> list[Any]:
        start = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items without a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str) or not isinstance(value, self.kind):
                raise ValueError("an entry that is not text to what it should be")
            target[key] = value

    def _find(self) -> None:
        """A name of NumPy's."""
        module, name = self._pop(2)
        known = _KNOWN.get((module, name)) if isinstance(module, str) and isinstance(name, str) else None
        if known is None:
            raise ValueError("a name that no array needs")
        self._push(known)

    def _apply(self) -> None:
        """What is said to be made of a name and its arguments."""
        name, arguments = self._pop(2)
        if name is _Name.RECONSTRUCT and arguments == (_Name.ARRAY, (0,), b"b"):
            self._push(_Array())
        elif name is _Name.DTYPE and arguments == ("f4", False, True):
            self._push(_Dtype())
        elif name is _Name.FROM_BUFFER and isinstance(arguments, tuple) and len(arguments) == 4:
            data, dtype, shape, order = arguments
            if order != "C":
                raise ValueError("an array that is not in C order")
            self._push(_Array(_values(data, dtype, shape)))
        else:
            raise ValueError("something else than an array of float32")

    def _build(self) -> None:
        """The contents of what was made before."""
        target, state = self._pop(2)
        if isinstance(target, _Dtype) and state == _LITTLE_ENDIAN:
            target.is_little_endian = True
        elif isinstance(target, _Array) and target.values is None and isinstance(state, tuple) and len(state) == 5:
            version, shape, dtype, is_fortran, data = state
            if version != 1 or is_fortran is not False:
                raise ValueError("an array that is not in C order")
            target.values = _values(data, dtype, shape)
        else:
            raise ValueError("something else than an array of little-endian float32")
        self._push(target)


def _values(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, _Dtype) or not dtype.is_little_endian:
        raise ValueError("an array of something else than little-endian float32")
    if not isinstance(shape, tuple) or not all(type(side) is int and side > 0 for side in shape):
        raise ValueError("an array without a shape")
    if 4 * math.prod(shape) != len(data):
        raise ValueError("an array whose shape and bytes do not fit")
    return np.frombuffer(data, "<f4").reshape(shape)


_BUILDING: Mapping[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda machine, _: machine._push(_MARK),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "MEMOIZE": lambda machine, _: machine.memo.update({len(machine.memo): machine.stack[-1]}),
    "BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "LONG_BINPUT": lambda machine, index: machine.memo.update({index: machine.stack[-1]}),
    "BINGET": lambda machine, index: machine._push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine._push(machine.memo[index]),
    "SETITEM": lambda machine, _: machine._set_items(list(machine._pop(2))),
    "SETITEMS": lambda machine, _: machine._set_items(machine._after_mark()),
}
_APPLYING: Mapping[str, Callable[[_Machine], None]] = {
    "TUPLE": lambda machine: machine._push(tuple(machine._after_mark())),
    "STACK_GLOBAL": _Machine._find,
    "REDUCE": _Machine._apply,
    "BUILD": _Machine._build,
}
