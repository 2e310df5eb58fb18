"""The arithmetic of ./dev bench."""

from __future__ import annotations

from tests.bench.pairs import Pairs, Row, measure, table


def test_actions_take_turns_and_each_comes_first() -> None:
    order: list[str] = []
    taken = measure([lambda: order.append("a"), lambda: order.append("b")], rounds=3, warm_up=1)
    assert "".join(order) == "ab" + "abbaab"
    assert [len(times) for times in taken] == [3, 3]


def test_ratios_are_by_pair() -> None:
    pairs = Pairs([1.0, 2.0, 4.0], [2.0, 2.0, 5.0])
    assert pairs.ratios == [2.0, 1.0, 1.25]
    assert pairs.differences == [1.0, 0.0, 1.0]


def test_a_row_is_judged_by_its_median() -> None:
    row = Row("x", 1.15, [1.0, 1.1, 9.0])
    assert (row.median, row.met) == (1.1, True)
    assert not Row("x", 1.15, [1.2, 1.2, 1.0]).met
    assert table([row]).splitlines()[1].split() == ["x", "<=", "1.15", "1.10", "1.00", "9.00", "3", "yes"]
