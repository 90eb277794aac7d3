"""The base of every value: frozen, slotted, keyword-only, and cheap to define.

A `dataclass(frozen=True, slots=True)` writes and compiles source text for each class: 0.34–0.41 ms
a class, and 13 ms for its import (measured on CPython 3.11–3.13). A launcher defines some forty of
them before it may fork, so that alone would cost a start more than everything else it does. This
base takes a few microseconds a class, and type checkers see the same thing (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False  # spelled out: to import typing at run time would cost 2.5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar, dataclass_transform

    ValueT = TypeVar("ValueT", bound="Value")
    TypeT = TypeVar("TypeT")
else:

    def dataclass_transform(**_: object) -> Callable[[TypeT], TypeT]:
        """Stand in for typing's, which only type checkers read."""
        return lambda cls: cls


_MISSING: Any = object()


class _ValueType(type):
    """Turns annotations into slots, and assigned defaults into defaults."""

    __fields__: tuple[str, ...]
    __defaults__: dict[str, Any]

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _ValueType:
        own = [
            field
            for field, text in namespace.get("__annotations__", {}).items()
            if not str(text).startswith("ClassVar")
        ]
        inherited: tuple[str, ...] = ()
        defaults: dict[str, Any] = {}
        for base in reversed(bases):
            inherited += getattr(base, "__fields__", ())
            defaults.update(getattr(base, "__defaults__", {}))
        for field in own:
            if field in namespace:
                defaults[field] = namespace.pop(field)
        namespace["__slots__"] = tuple(field for field in own if field not in inherited)
        namespace["__fields__"] = (*inherited, *namespace["__slots__"])
        namespace["__defaults__"] = defaults
        namespace["__match_args__"] = ()
        return super().__new__(mcs, name, bases, namespace)


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True)
class Value(metaclass=_ValueType):
    """A frozen record of named fields, equal to another of its own class with equal fields.

    Annotations name the fields, assignments in the class body give defaults, `ClassVar`s are not
    fields. The module that defines one must use `from __future__ import annotations`.

    Raises:
        TypeError: A field is missing, or a name is not a field.
    """

    def __init__(self, **fields: Any) -> None:
        cls = type(self)
        put = object.__setattr__
        defaults = cls.__defaults__
        for name in cls.__fields__:
            given = fields.pop(name, _MISSING)
            if given is _MISSING:
                given = defaults.get(name, _MISSING)
                if given is _MISSING:
                    message = f"{cls.__name__} needs {name!r}"
                    raise TypeError(message)
            put(self, name, given)
        if fields:
            message = f"{cls.__name__} has no field {next(iter(fields))!r}"
            raise TypeError(message)

    def __setattr__(self, name: str, value: object) -> None:
        message = f"{type(self).__name__} is frozen: cannot set {name!r}"
        raise AttributeError(message)

    def __delattr__(self, name: str) -> None:
        message = f"{type(self).__name__} is frozen: cannot delete {name!r}"
        raise AttributeError(message)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash((type(self), *self))

    def __iter__(self) -> Iterator[Any]:
        """Yield the fields' values in the order of their definition."""
        return (getattr(self, name) for name in type(self).__fields__)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).__fields__)
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_remake, (type(self), dict(zip(type(self).__fields__, self, strict=True))))


def replace(value: ValueT, **changes: Any) -> ValueT:
    """Return a copy of *value* with *changes* made."""
    return _remake(
        type(value), {**dict(zip(type(value).__fields__, value, strict=True)), **changes}
    )


def _remake(cls: type[ValueT], fields: dict[str, Any]) -> ValueT:
    return cls(**fields)
