"""Values as plain data and back: the form in which they survive a change of version.

Not a pickle, which is bound to the classes that wrote it. A value is an object of the fields that
were set, and of those that were as usual when it was written:

    {"is": "Worker", "set": {"id": 3, ...}, "usual": {"attempts": 0, ...}}

So a reader of another version knows every number that was meant, even if its own defaults differ.
A field that it does not know may be left out only if it was as usual: to drop a setting in silence
would be to do something else than was asked for.
"""

from __future__ import annotations

from forkfirst import errors
from forkfirst.plan.fleet.events import ReloadAsked
from forkfirst.plan.fleet.state import Fleet, Generation, Settings, Worker
from forkfirst.plan.host import Identity
from forkfirst.plan.listener import Listener, ListenerOptions
from forkfirst.plan.places import Places
from forkfirst.plan.service import Declaration
from forkfirst.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CLASSES: dict[str, type[Value]] = {
    one.__name__: one
    for one in (
        *(Fleet, Generation, Worker, Settings, ReloadAsked),
        *(Declaration, Listener, ListenerOptions, Places, Identity),
    )
}
"""What can be handed over. A class that is renamed keeps its old name here as well."""

_SIMPLE = (str, int, float, bool, type(None))


def encode(value: object) -> Any:
    """Return *value* as what JSON has; tuples become arrays.

    Raises:
        TypeError: It is, or contains, something that is not to be handed over.
    """
    if isinstance(value, _SIMPLE):
        return value
    if isinstance(value, tuple):
        return [encode(one) for one in value]
    name = type(value).__name__
    if not isinstance(value, Value) or _CLASSES.get(name) is not type(value):
        message = f"{name} cannot be handed over"
        raise TypeError(message)
    written: dict[str, Any] = {"is": name, "set": {}, "usual": {}}
    for field, content in zip(type(value).__fields__, value, strict=True):
        is_usual = field in type(value).__defaults__ and type(value).__defaults__[field] == content
        written["usual" if is_usual else "set"][field] = encode(content)
    return written


def decode(data: Any) -> Any:
    """Return the value that `encode` has written as *data*, maybe in another version.

    Raises:
        ForkfirstError: This version has no such value, or no such field.
    """
    if isinstance(data, _SIMPLE):
        return data
    if isinstance(data, list):
        return tuple(decode(one) for one in data)
    cls = _CLASSES.get(data["is"])
    if cls is None:
        message = f"this forkfirst does not know {data['is']!r}, which it would have to take over"
        raise errors.ForkfirstError(message)
    known = cls.__fields__
    for field in data["set"]:
        if field not in known:
            message = f"this forkfirst does not know {field!r} of {data['is']}, which is in use"
            raise errors.ForkfirstError(message)
    fields = {**data["usual"], **data["set"]}
    return cls(**{field: decode(content) for field, content in fields.items() if field in known})
