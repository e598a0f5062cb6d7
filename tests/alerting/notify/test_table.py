"""Every notifier of the table is what a notifier has to be."""

from __future__ import annotations

import importlib

import pytest

from alerting.notify.table import NOTIFIERS


@pytest.mark.parametrize("kind", NOTIFIERS)
def test_the_table_names_a_notifier_of_that_kind(kind: str) -> None:
    module, _, name = NOTIFIERS[kind].partition(":")
    found = getattr(importlib.import_module(module), name)
    assert found.kind == kind
    assert callable(found.send)
    assert callable(found.preview)
    assert isinstance(found.can_summarize, bool)
