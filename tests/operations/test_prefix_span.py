"""What PrefixSpan finds is what a look at every subsequence finds."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from memlab.operations.prefix_span import closed, prefix_span

# The example of Pei et al. (2001), with sets of items laid out as one item after another.
PAPER = ["abcacdcf", "adcbcae", "efabdfcb", "egafcbc"]

databases = st.lists(st.text("abc", max_size=6), max_size=5)
gaps = st.none() | st.integers(0, 3)


def embeds(pattern: tuple[str, ...], sequence: str, max_gap: int | None) -> bool:
    """Return whether any choice of places holds the pattern."""
    return any(
        tuple(sequence[place] for place in places) == pattern
        and all(max_gap is None or right - left <= max_gap + 1 for left, right in itertools.pairwise(places))
        for places in itertools.combinations(range(len(sequence)), len(pattern))
    )


def brute_force(sequences: list[str], min_support: int, max_length: int, max_gap: int | None) -> dict[tuple[str, ...], int]:
    """Return the support of every frequent pattern by counting each that could be."""
    found = {}
    for length in range(1, max_length + 1):
        for pattern in itertools.product("abc", repeat=length):
            support = sum(embeds(pattern, sequence, max_gap) for sequence in sequences)
            if support >= min_support:
                found[pattern] = support
    return found


def test_the_example_of_the_paper():
    """Supports counted by hand in four sequences."""
    found, is_all = prefix_span(PAPER, 2, 3)
    support = dict(found)
    assert is_all
    assert (support["a",], support["d",], support["a", "b"], support["a", "c", "b"]) == (4, 3, 4, 3)
    assert ("g",) not in support
    assert support["e", "f"] == 2


def test_a_gap_bounds_what_lies_between():
    """In `axb` one action lies between a and b; in `axxb` two do."""
    for max_gap, support in ((0, 1), (1, 2), (2, 3), (None, 3)):
        found = dict(prefix_span(["ab", "axb", "axxb"], 1, 2, max_gap=max_gap)[0])
        assert found["a", "b"] == support


def test_an_early_occurrence_does_not_hide_a_later_one():
    """Of `a…ab` the second a is next to b."""
    found = dict(prefix_span(["axxab", "ab"], 2, 2, max_gap=0)[0])
    assert found["a", "b"] == 2


@given(databases, st.integers(1, 3), st.integers(1, 4), gaps)
def test_it_equals_brute_force(sequences, min_support, max_length, max_gap):
    """Every frequent pattern is found once, with its support, and no other."""
    found, is_all = prefix_span(sequences, min_support, max_length, max_gap=max_gap)
    assert is_all
    assert len(found) == len(dict(found))
    assert dict(found) == brute_force(sequences, min_support, max_length, max_gap)


@given(databases, st.integers(1, 20))
def test_a_bounded_walk_loses_the_rarest_alone(sequences, most):
    """What is left out is nowhere more frequent than what is returned, and the answer says that something is."""
    everything, _ = prefix_span(sequences, 1, 3)
    found, is_all = prefix_span(sequences, 1, 3, max_patterns=most)
    assert found == everything[:most]
    assert is_all == (len(everything) <= most)
    assert [support for _, support in found] == sorted((support for _, support in found), reverse=True)


@given(databases, st.integers(1, 3))
def test_closed_patterns_have_no_longer_one_as_frequent(sequences, min_support):
    """With no bound on gaps they are those that no longer pattern of the same support contains."""
    found, _ = prefix_span(sequences, min_support, 4)
    kept = {
        pattern
        for pattern, support in found
        if not any(
            len(other) > len(pattern) and count == support and embeds(pattern, "".join(other), None) for other, count in found
        )
    }
    assert {pattern for pattern, _ in closed(found)} == kept
