"""A key is shown to the upstream and to nobody else."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from settle_mp.core.secret import Secret, hide_keys

KEY = "ss_live_4f9aB-x_7"


@dataclasses.dataclass
class Holder:
    """Something that holds a secret, as Settings does."""

    key: Secret


@pytest.mark.parametrize("show", [str, repr, "{}".format, "%s".__mod__, lambda secret: str([secret])])
def test_no_way_of_printing_shows_the_key(show: type[str]) -> None:
    """str, repr and both ways of formatting show the mode only."""
    shown = show(Secret(KEY))
    assert "4f9aB" not in shown
    assert "ss_live_" in shown


def test_unfolding_a_dataclass_does_not_show_the_key() -> None:
    """dataclasses.asdict() of what holds a secret still holds a Secret."""
    assert "4f9aB" not in str(dataclasses.asdict(Holder(key=Secret(KEY))))


def test_reveal_gives_the_key_and_copies_keep_it() -> None:
    """The key is all there after copying and pickling, as forkserver and spawn do."""
    for secret in (Secret(KEY), copy.deepcopy(Secret(KEY)), pickle.loads(pickle.dumps(Secret(KEY)))):  # noqa: S301
        assert secret.reveal() == KEY
        assert secret == Secret(KEY)


def test_secrets_differ_by_key_and_from_text() -> None:
    """Equality is that of the keys; the bare text is no secret."""
    assert Secret(KEY) != Secret(KEY + "x")
    assert len({Secret(KEY), Secret(KEY), Secret("other")}) == 2
    assert Secret(KEY) != KEY


@pytest.mark.parametrize(
    ("key", "mode"), [("ss_test_x", "test"), ("ss_live_x", "live"), ("sk_x", ""), ("", "")]
)
def test_the_mode_is_in_the_prefix(key: str, mode: str) -> None:
    """Test keys are the vendor's sandbox; any other form has no mode."""
    assert Secret(key).mode == mode


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f'{{"message": "bad key {KEY}"}}', '{"message": "bad key ss_live_***"}'),
        (f"<b>{KEY}</b> and ss_test_1, then", "<b>ss_live_***</b> and ss_test_***, then"),
        ("nothing to hide: ss_other_1", "nothing to hide: ss_other_1"),
    ],
)
def test_keys_are_taken_out_of_text(text: str, hidden: str) -> None:
    """Each key in a text is cut after its mode, and nothing else changes."""
    assert hide_keys(text) == hidden
