"""Reads pickles without running them.

A pickle is a program for a small stack machine, and Python's own reader calls whatever the program names. This one has
no calls at all: a class or function becomes a ``Global``, what would have been made of it a ``Made``, and only the
caller decides what to read out of those. Names outside a fixed list are refused, and so is a program that is too long.
Neither torch nor omegaconf is needed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

MAX_BYTES = 1 << 26
MAX_OPERATIONS = 2_000_000
"""A checkpoint with an optimizer's state needs some hundred thousand; an operation makes at most one small object."""
MAX_DEPTH = 64
_MAX_KEY = 1 << 31

_EXACT = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list long object set str tuple unicode",
    "collections": "OrderedDict defaultdict deque",
    "typing": "Any",
    "argparse": "Namespace",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "_codecs": "encode",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "torch": "Size device bfloat16 bool float16 float32 float64 int8 int16 int32 int64 uint8 "
    "BFloat16Storage BoolStorage ByteStorage CharStorage DoubleStorage FloatStorage HalfStorage IntStorage LongStorage "
    "ShortStorage",
    "torch._utils": "_rebuild_parameter _rebuild_tensor _rebuild_tensor_v2",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch.nn.parameter": "Parameter",
    "torch.storage": "TypedStorage UntypedStorage",
}
_KNOWN = frozenset((module, name) for module, names in _EXACT.items() for name in names.split())
_FAMILIES = ("omegaconf.", "lightning.", "lightning_fabric.", "pytorch_lightning.")
"""Packages whose objects travel in checkpoints: configurations and hyper-parameters. None of their code is used."""


class BadPickle(ValueError):
    """Not a pickle, or one that this reader refuses. The message is the end of a sentence: «the file ...»."""


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that the pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Made:
    """What calling ``of`` would have made; nothing was called.

    Attributes:
        of: class or function.
        args: of the call.
        state: what was to be set on the object afterwards, or None.
        items: keys and values that were to be put in.
        entries: values that were to be appended.
    """

    of: Global
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    entries: list[Any] = field(default_factory=list)


Call = Callable[[Global, tuple[Any, ...]], Any]
"""What to take for a call; most give ``Made``. A recursive answer or one that runs code would be the caller's fault."""
Refer = Callable[[Any], Any]
"""What to take for a reference to something outside the pickle."""


def read_pickle(data: bytes, *, call: Call = Made, refer: Refer | None = None) -> Any:
    """The object that a pickle describes, of plain values, ``Global`` and ``Made``.

    Tuples, lists, dictionaries, texts, bytes, numbers, booleans and None are what they are; sets become lists.

    Args:
        data: the whole pickle; what follows its end is ignored.
        call: see ``Call``.
        refer: see ``Refer``; None refuses references.
    Raises:
        BadPickle: malformed, too long, or it names something that no checkpoint needs.
    """
    if len(data) > MAX_BYTES:
        raise BadPickle(f"holds a pickle of {len(data)} bytes; at most {MAX_BYTES} are read")
    machine = _Machine(call, refer)
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPERATIONS:
                raise BadPickle(f"holds a pickle of more than {MAX_OPERATIONS} operations")
            if operation.name == "STOP":
                return machine.pop()
            machine.step(operation.name, argument)
    except BadPickle:
        raise
    except (ValueError, OverflowError) as error:
        raise BadPickle(f"holds no pickle: {error}") from None
    raise BadPickle("holds a pickle without an end")


def plain(value: Any) -> Any:
    """What was read as plain values: omegaconf's configurations and other mappings as dictionaries and lists.

    What has no plain form stays as it is, a ``Global`` or ``Made``.

    Raises:
        BadPickle: nested too deeply, or in itself.
    """
    return _plain(value, 0, {})


_OPEN = object()


def _plain(value: Any, depth: int, done: dict[int, Any]) -> Any:
    if not isinstance(value, (list, tuple, dict, Made)):
        return value
    if depth > MAX_DEPTH:
        raise BadPickle(f"holds values nested more than {MAX_DEPTH} deep")
    found = done.get(id(value))
    if found is _OPEN:
        raise BadPickle("holds a value that contains itself")
    if found is not None:
        return found
    done[id(value)] = _OPEN

    def inner(part: Any) -> Any:
        return _plain(part, depth + 1, done)

    result: Any
    if isinstance(value, list):
        result = [inner(part) for part in value]
    elif isinstance(value, tuple):
        result = tuple(inner(part) for part in value)
    elif isinstance(value, dict):
        result = {key: inner(part) for key, part in value.items()}
    else:
        result = _plain_made(value, inner)
    done[id(value)] = result
    return result


def _plain_made(value: Made, inner: Callable[[Any], Any]) -> Any:
    state = value.state if isinstance(value.state, dict) else {}
    if value.of.module.startswith("omegaconf."):
        key = "_content" if "_content" in state else "_val"
        return inner(state[key]) if key in state else value
    if value.of.name in ("OrderedDict", "defaultdict", "AttributeDict", "Namespace"):
        pairs = value.args[0] if value.of.name == "OrderedDict" and value.args else ()
        table = {}
        for pair in pairs if isinstance(pairs, (list, tuple)) else ():
            if isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], (str, int)):
                table[pair[0]] = inner(pair[1])
        return {**table, **inner(value.items), **(inner(state) if value.of.name == "Namespace" else {})}
    return value


def _refuse(name: Global) -> NoReturn:
    raise BadPickle(f"asks for {name}, which no checkpoint needs; it was refused and nothing was run")


class _Machine:
    """Stack, marks and memory of a pickle."""

    def __init__(self, call: Call, refer: Refer | None) -> None:
        self._call, self._refer = call, refer
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One operation."""
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _MAKERS:
            self._stack.append(_MAKERS[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self._memo:
                raise BadPickle("holds a pickle that refers to what it never had")
            self._stack.append(self._memo[argument])
        elif name in ("PROTO", "FRAME"):
            pass
        elif (method := getattr(self, f"_do_{name.lower()}", None)) is not None:
            method(argument)
        else:
            raise BadPickle(f"holds a pickle with the operation {name}, which no checkpoint needs")

    def pop(self) -> Any:
        """The top of the stack, not below the last mark."""
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise BadPickle("holds a pickle that takes more than it put")
        return self._stack.pop()

    def _top(self) -> Any:
        value = self.pop()
        self._stack.append(value)
        return value

    def _marked(self) -> list[Any]:
        if not self._marks:
            raise BadPickle("holds a pickle with an unbalanced mark")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    # ---- the stack ----

    def _do_mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def _do_pop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self.pop()

    def _do_pop_mark(self, _: Any) -> None:
        self._marked()

    def _do_dup(self, _: Any) -> None:
        self._stack.append(self._top())

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._top()

    # ---- containers ----

    def _do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._marked()))

    def _do_tuple1(self, _: Any) -> None:
        self._stack.append((self.pop(),))

    def _do_tuple2(self, _: Any) -> None:
        second, first = self.pop(), self.pop()
        self._stack.append((first, second))

    def _do_tuple3(self, _: Any) -> None:
        third, second, first = self.pop(), self.pop(), self.pop()
        self._stack.append((first, second, third))

    def _do_list(self, _: Any) -> None:
        self._stack.append(self._marked())

    _do_frozenset = _do_list

    def _do_dict(self, _: Any) -> None:
        values = self._marked()
        table: dict[Any, Any] = {}
        _put(table, values)
        self._stack.append(table)

    def _do_append(self, _: Any) -> None:
        self._extend([self.pop()])

    def _do_appends(self, _: Any) -> None:
        self._extend(self._marked())

    _do_additems = _do_appends

    def _extend(self, values: list[Any]) -> None:
        target = self._top()
        entries = target.entries if isinstance(target, Made) else target
        if not isinstance(entries, list):
            raise BadPickle("holds a pickle that appends to what is no list")
        entries.extend(values)

    def _do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set([key, value])

    def _do_setitems(self, _: Any) -> None:
        self._set(self._marked())

    def _set(self, values: list[Any]) -> None:
        target = self._top()
        items = target.items if isinstance(target, Made) else target
        if not isinstance(items, dict):
            raise BadPickle("holds a pickle that sets keys of what is no dictionary")
        _put(items, values)

    # ---- what is named ----

    def _do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_known(module, name))

    def _do_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise BadPickle("holds a pickle that names something by what is no text")
        self._stack.append(_known(module, name))

    def _do_reduce(self, _: Any) -> None:
        args, function = self.pop(), self.pop()
        self._make(function, args)

    _do_newobj = _do_reduce

    def _do_newobj_ex(self, _: Any) -> None:
        keywords, args, kind = self.pop(), self.pop(), self.pop()
        if keywords:
            raise BadPickle("holds an object made with keyword arguments, which no checkpoint needs")
        self._make(kind, args)

    def _do_inst(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._make(_known(module, name), tuple(self._marked()))

    def _do_obj(self, _: Any) -> None:
        values = self._marked()
        self._make(values[0] if values else None, tuple(values[1:]))

    def _make(self, of: Any, args: Any) -> None:
        if not isinstance(of, Global) or not isinstance(args, tuple):
            raise BadPickle("holds a pickle that calls what is no function")
        self._stack.append(self._call(of, args))

    def _do_build(self, _: Any) -> None:
        state, target = self.pop(), self._top()
        if isinstance(target, Made):
            target.state = state

    def _do_binpersid(self, _: Any) -> None:
        self._reference(self.pop())

    def _do_persid(self, argument: str) -> None:
        self._reference(argument)

    def _reference(self, argument: Any) -> None:
        if self._refer is None:
            raise BadPickle("holds a pickle that refers to something outside itself")
        self._stack.append(self._refer(argument))


_LITERAL_NAMES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_LITERALS = frozenset(_LITERAL_NAMES.split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_MAKERS: dict[str, type[Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}


def _known(module: str, name: str) -> Global:
    """The name, if it is one that checkpoints hold."""
    module = "builtins" if module == "__builtin__" else module
    found = Global(module, name)
    if (module, name) not in _KNOWN and not (f"{module}.").startswith(_FAMILIES):
        _refuse(found)
    return found


def _put(table: dict[Any, Any], values: list[Any]) -> None:
    """Keys and values in turn. Keys are of kinds that are hashed in no time, whoever chose them."""
    if len(values) % 2:
        raise BadPickle("holds a pickle with a key that has no value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        known = isinstance(key, (str, bytes, bool, Global)) or key is None
        if not known and not (isinstance(key, int) and abs(key) < _MAX_KEY):
            raise BadPickle(f"holds a dictionary with a key of type {type(key).__name__}")
        table[key] = value
