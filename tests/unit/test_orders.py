"""Money is exact; an order is the fold of its history."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderflow.orders import Effect, Item, Money, money, money_from_json, step, total


@given(st.integers(1, 100_000_000), st.integers(1, 10_000))
def test_a_total_is_exact(minor: int, quantity: int) -> None:
    """In integers of minor units nothing is rounded, and the sum agrees."""
    item = Item("i", quantity, Money(Decimal(minor).scaleb(-2)))

    assert int(total((item, item)) * 100) == 2 * minor * quantity


@given(st.integers(0, 10**14))
def test_shipping_is_two_percent_halves_up(minor: int) -> None:
    """Rounded once, after the sum: as done by hand in integers."""
    amount = Decimal(minor).scaleb(-2)

    assert int(money(amount * Decimal("0.02")) * 100) == (2 * minor + 50) // 100
    assert money(amount * Decimal("0.02")) == (amount * Decimal("0.02")).quantize(Decimal("0.01"), ROUND_HALF_UP)


@pytest.mark.parametrize(
    ("number", "text"), [(10.1, "10.10"), (3, "3.00"), (0.3, "0.30"), (99999999999.99, "99999999999.99")]
)
def test_a_json_number_means_the_decimal_that_was_written(number: float, text: str) -> None:
    """0.3 is 0.30, and not the binary fraction next to it."""
    assert str(money_from_json(number)) == text


@pytest.mark.parametrize("number", [0.001, 10.005, 1e13, -1e13, 10**400])
def test_a_number_that_is_no_amount_is_refused(number: float) -> None:
    """More than two places, or out of range."""
    with pytest.raises(ValueError, match="Expected"):
        money_from_json(number)


def test_an_event_does_one_of_four_things() -> None:
    """The whole fold: existence and kind decide."""
    assert step(False, creates=True) is Effect.CREATED
    assert step(True, creates=True) is Effect.DUPLICATE_CREATE
    assert step(True, creates=False) is Effect.STATUS_SET
    assert step(False, creates=False) is Effect.UNKNOWN_ORDER
