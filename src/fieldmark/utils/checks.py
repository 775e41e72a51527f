"""Check the fields of a configuration against the values that their types name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args, get_origin, get_type_hints

from fieldmark.utils.errors import InputError


def check_choices(config: object) -> None:
    """Raise InputError for a field of a dataclass that is none of the values of its `Literal` type."""
    for wrong in wrong_choices(config):
        raise InputError(wrong)


def wrong_choices(config: object) -> Iterator[str]:
    """Yield a sentence for each field of a dataclass that is none of the values of its `Literal` type."""
    for name, kind in get_type_hints(type(config)).items():
        kinds = (kind, *get_args(kind))  # also of `Literal[...] | None`
        allowed = [word for each in kinds if get_origin(each) is Literal for word in get_args(each)]
        value = getattr(config, name)
        if allowed and value not in allowed and not (value is None and type(None) in kinds):
            yield f"{name} is {value!r}: choose {', '.join(map(str, allowed[:-1]))} or {allowed[-1]}."
