"""What a question says of when and who: dates that it names, and a source among those that memories have."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable

from memlab.storage.demands import Period

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9}
_WORDS = {"may", "march", "mar", "dec", "sep", "jan"}  # also words or names; alone they count with a capital letter
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\b\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s*(?P<year>\d{4})\b)?"
_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"\b(?P<year>\d{4})-(?P<number>[01]\d)(?:-(?P<day>[0-3]\d))?\b",
        rf"\b{_DAY}\s+(?:of\s+)?{_MONTH}{_YEAR}",
        rf"\b{_MONTH}\s+{_DAY}\b{_YEAR}",
        rf"\b{_MONTH}{_YEAR}",
    )
)


def periods_of(text: str) -> tuple[Period, ...]:
    """Return the days and months that *text* names, in the order of the forms above, each once.

    >>> periods_of("What happened on 3 June, 2023, and in August?")
    (Period(month=6, day=3, year=2023), Period(month=8, day=None, year=None))
    """
    found: list[Period] = []
    taken: list[tuple[int, int]] = []
    for form in _FORMS:
        for match in form.finditer(text):
            start, end = match.span()
            if any(start < there and here < end for here, there in taken):
                continue
            said = match.groupdict()
            name = said.get("month")
            if name in _WORDS and said.get("day") is None and said.get("year") is None:
                continue
            month = _MONTHS[name.lower()] if name else int(said["number"])
            day = int(said["day"]) if said.get("day") else None
            year = int(said["year"]) if said.get("year") else None
            if not 1 <= month <= 12 or (day is not None and not 1 <= day <= 31):
                continue
            found.append(Period(month, day, year))
            taken.append((start, end))
    return tuple(dict.fromkeys(found))


def source_named(text: str, sources: Iterable[str | None]) -> str | None:
    """Return the only one of *sources* whose words all stand in *text*; None where there is none, or several.

    >>> source_named("What did Ada say to the crew?", ["Ada", "Bo", None])
    'Ada'
    """
    said = set(_words(text))
    named = {source for source in sources if source and (words := _words(source)) and said.issuperset(words)}
    return named.pop() if len(named) == 1 else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
