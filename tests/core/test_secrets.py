from __future__ import annotations

import pickle

import pytest

from agent.core.secrets import Secret


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("canary")
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret!r:>10}",
        str({"token": secret}),
        str([secret]),
    ]
    assert all("canary" not in text for text in shown)
    assert str(secret) == "***"


def test_it_is_given_to_who_asks_by_name() -> None:
    assert Secret("canary").reveal() == "canary"


def test_it_compares_with_a_candidate() -> None:
    assert Secret("a").matches("a")
    assert not Secret("a").matches("b")
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"


def test_it_does_not_travel_in_a_pickle() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret("canary"))
