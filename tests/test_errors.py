from __future__ import annotations

import inspect
import re

import pytest

from fieldmark.utils import errors
from fieldmark.utils.errors import FieldmarkError, ImageRejected, RejectReason


def drawn() -> dict[str, str]:
    """Each exception in the tree of the module's docstring, with the one above it."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)([A-Z]\w+)(  |$)", line)
        if found:
            depth = len(found[1]) // 4
            above[depth:] = [found[2]]
            parents[found[2]] = above[depth - 1] if depth else "Exception"
    return parents


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    classes = {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert drawn() == {name: value.__base__.__name__ for name, value in classes.items()}


def test_every_exception_can_be_caught_at_the_root() -> None:
    for name in drawn():
        assert issubclass(getattr(errors, name), FieldmarkError)


@pytest.mark.parametrize("reason", list(RejectReason))
def test_a_rejection_says_its_reason_and_detail(reason: RejectReason) -> None:
    assert str(ImageRejected(reason)) == reason.value
    rejected = ImageRejected(reason, "byte 17")
    assert str(rejected) == f"{reason.value}: byte 17"
    assert (rejected.reason, rejected.detail) == (reason, "byte 17")


def test_reasons_are_words_that_can_stand_in_a_table() -> None:
    for reason in RejectReason:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", reason.value)
