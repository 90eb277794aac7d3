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
    from collections.abc import Callable
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
    if isinstance(content, Value):
        kind = type(content)
        fields = {name: _flatten(getattr(content, name)) for name in kind.__fields__}
        return (..., kind.__module__, kind.__name__, fields)  # no tuple of ours begins with that
    return _do_within(content, _flatten)


def _restore(data: Any) -> Any:
    if type(data) is tuple and data[:1] == (...,):
        return _make_value(*data[1:])
    return _do_within(data, _restore)


def _do_within(content: Any, act: Callable[[Any], Any]) -> Any:
    """Return *content* with *act* done to each thing in it, if it has any."""
    kind = type(content)
    if kind is tuple or kind is list:
        return kind([act(one) for one in content])
    if kind is dict:
        return {name: act(one) for name, one in content.items()}
    return content


def _make_value(module: str, name: str, fields: dict[str, Any]) -> Value:
    cls = getattr(__import__(module, fromlist=[name]), name) if module.startswith(_OURS) else None
    if not isinstance(cls, type) or not issubclass(cls, Value):
        message = f"{module}.{name} is no value of ours"
        raise TypeError(message)
    return cls(**{field: _restore(content) for field, content in fields.items()})
