"""Values as octets, from one process of forkfirst to another of the same version.

What is sent is plain data, in the form of `marshal`; which class a value is of stands beside its
fields, and is looked up among ours alone. `pickle` would run whatever its sender wrote, and its
import costs a start 0.7 ms.
"""

from __future__ import annotations

import marshal

from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OURS = "forkfirst."


def pack(content: object) -> bytes:
    """Return *content* for `unpack`: values, and plain data of the types that `marshal` knows.

    Raises:
        ValueError: Something in it is neither.
    """
    return marshal.dumps(_flatten(content))


def unpack(octets: bytes) -> Any:
    """Return what `pack` was given.

    Only from a process of one's own user, or root's: `marshal` trusts its input.

    Raises:
        ValueError, EOFError: It is not from `pack`.
        TypeError, ImportError, AttributeError: It has a value whose class is not ours, is not
            known to this version, or has other fields.
    """
    return _restore(marshal.loads(octets))  # noqa: S302 - see above


def _flatten(content: Any) -> Any:
    kind = type(content)
    if isinstance(content, Value):
        fields = {name: _flatten(getattr(content, name)) for name in kind.__fields__}
        return (..., kind.__module__, kind.__name__, fields)  # no tuple of ours begins with that
    if kind is tuple:
        return tuple([_flatten(one) for one in content])
    if kind is list:
        return [_flatten(one) for one in content]
    if kind is dict:
        return {name: _flatten(one) for name, one in content.items()}
    return content


def _restore(data: Any) -> Any:
    kind = type(data)
    if kind is tuple:
        if data[:1] == (...,):
            return _make_value(*data[1:])
        return tuple([_restore(one) for one in data])
    if kind is list:
        return [_restore(one) for one in data]
    if kind is dict:
        return {name: _restore(one) for name, one in data.items()}
    return data


def _make_value(module: str, name: str, fields: dict[str, Any]) -> Value:
    cls = getattr(__import__(module, fromlist=[name]), name) if module.startswith(_OURS) else None
    if not isinstance(cls, type) or not issubclass(cls, Value):
        message = f"{module}.{name} is no value of ours"
        raise TypeError(message)
    return cls(**{field: _restore(content) for field, content in fields.items()})
