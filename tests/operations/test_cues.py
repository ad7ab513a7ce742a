"""Dates and sources are found where a question names them, and nowhere else."""

import pytest

from memlab.operations.cues import periods_of, source_named
from memlab.storage.demands import Period


@pytest.mark.parametrize(
    ("text", "periods"),
    [
        ("What happened on May 3, 2023?", [Period(5, 3, 2023)]),
        ("What happened on 3 June, 2023?", [Period(6, 3, 2023)]),
        ("on the 3rd of June", [Period(6, 3)]),
        ("in August 2023 and in Sept.", [Period(8, None, 2023), Period(9)]),
        ("in JANUARY", [Period(1)]),
        ("on 2023-05-08, then in 2023-06", [Period(5, 8, 2023), Period(6, None, 2023)]),
        ("in May", [Period(5)]),
        ("who may march with the jan?", []),
        ("may 2022", [Period(5, None, 2022)]),
        ("on 45 June", [Period(6)]),
        ("2023-19-01", []),
        ("marching in junes", []),
        ("yesterday", []),
        ("", []),
    ],
)
def test_dates_are_found(text, periods):
    """Days and months in the usual forms, with a year or without; words that are also months count with a capital letter."""
    assert list(periods_of(text)) == periods


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("What does Ada drink?", "Ada"),
        ("what does ADA's cat drink?", "Ada"),
        ("What did Ada say to Bo?", None),
        ("What do they drink?", None),
        ("Adamant?", None),
        ("Mail of Ada Lovelace", None),
        ("Did Cy Twombly paint it?", "Cy Twombly"),
    ],
)
def test_the_only_source_named_is_found(text, source):
    """A source counts where all its words stand in the question and no other source's do."""
    sources = ["Ada", "Bo", None, "Cy Twombly", "Ada", *(["Ada Lovelace"] if "Mail" in text else [])]
    assert source_named(text, sources) == source
