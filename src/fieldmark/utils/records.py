"""Records: frozen dataclasses that are written as JSON and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import msgspec

from fieldmark.utils.errors import InputError


class Record:
    """The base of the frozen dataclasses that stand for a JSON object.

    A field that is `msgspec.UNSET` has no key in the JSON object; all others have the key of their name.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: nested records as dictionaries, tuples as lists."""
        return dict(_plain(msgspec.to_builtins(self)))

    @classmethod
    def from_dict(cls, values: Any, where: object = "the record") -> Self:
        """Read what `to_dict` gave, from the file `where`; unknown keys are ignored.

        Raises:
            InputError: a value is missing, or has another type.
        """
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise InputError(
                f"{where} is not a {cls.__name__} that fieldmark wrote ({error}): delete it and run "
                "the command again."
            ) from error

    def __getitem__(self, name: str) -> Any:
        """Return a value by its JSON key."""
        if (value := getattr(self, name, msgspec.UNSET)) is msgspec.UNSET:
            raise KeyError(name)
        return value


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
