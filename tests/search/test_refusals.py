"""Refusals told by kind."""

from search.refusals import reasons


def test_reasons_that_differ_in_numbers_are_one():
    refused = [("a", "count 9 leaves 1 of 10"), ("b", "W8A8 is not served"), ("c", "count 12 leaves 0 of 10")]
    assert reasons(refused) == [
        {"recipes": 2, "reason": "count 9 leaves 1 of 10", "example": "a"},
        {"recipes": 1, "reason": "W8A8 is not served", "example": "b"},
    ]
    assert len(reasons([("a", "W8A8 is not served"), ("b", "W4A8 is not served")])) == 2
