"""Walks: fresh processes that see the same events, and a walk beside writes that is held against what was there."""

import json

import polars as pl
import pytest

from memlab.errors import MemlabError
from memlab.experiment import paging
from memlab.experiment.load import run_in_own_loop
from memlab.values import Response, Table

TRAFFIC = {"corpus": {"events": 230, "sessions": 1, "questions": 1}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """One process of each way, on a store that no page size divides."""
    out = tmp_path_factory.mktemp("paging")
    point = {"candidate": {"cache": None, "storage.hot_rows": 16}}
    return paging.measure_point(point, workload=TRAFFIC, repeats=1, limits=[20, 100], out=out), out


@pytest.mark.serial
def test_all_walks_see_every_event(measured):
    """Page by page or as one list; pages are full but for the last, and enough walks are made for a percentile."""
    found = measured[0]
    assert found.summary["same_walk"] is True
    assert {way: one["pages"] for way, one in found.summary["ways"].items()} == {"20": 12, "100": 3, "list": 1}
    by_way = {way: part for (way,), part in found.pages.group_by("way")}
    assert by_way["20"]["rows"].to_list() == ([20] * 11 + [10]) * 4
    assert by_way["100"].height >= 40
    assert by_way["list"].height == 40


@pytest.mark.serial
def test_a_walk_beside_writes_holds(measured):
    """Something was added and forgotten after every full page; nothing is missing, seen twice or seen too late."""
    beside = measured[0].summary["beside_writes"]
    assert beside["added"] == beside["forgotten"] >= beside["pages"] - 1 > 0
    assert beside["holds"] is True


@pytest.mark.serial
def test_what_is_kept_is_what_was_returned(measured):
    """Raw rows and summary lie in the folder, and the means follow from them."""
    found, out = measured
    assert pl.read_parquet(out / "walks.parquet").equals(found.walks)
    assert pl.read_parquet(out / "pages.parquet").equals(found.pages)
    assert json.loads((out / "summary.json").read_text()) == json.loads(json.dumps(found.summary))
    took = found.pages.filter(pl.col("way") == "20").select(pl.col("took_ns").sum() / pl.col("rows").sum() / 1e3).item()
    assert found.summary["ways"]["20"]["per_row_us"]["value"] == pytest.approx(took)
    for way, told in found.summary["ways"].items():
        assert told["first_row_ms"]["value"] == pytest.approx(found.walks.filter(pl.col("way") == way)["first_row_ms"].mean())


class Event:
    """As much of an event as a walk looks at."""

    def __init__(self, number):
        self.id = f"event-{number}"
        self.occurred_at = number


class Counting:
    """An engine whose cursor counts rows from the beginning, as pages by offset do: what is forgotten moves the rest."""

    def __init__(self, events, pages):
        self.events = [Event(number) for number in range(events, 0, -1)]
        self.pages = pages

    async def execute(self, operation, parameters, *, session):
        match operation:
            case "episodic.list_events":
                start = int(parameters.get("cursor") or 0)
                end = start + parameters["limit"]
                return Response(Table(self.events[start:end], str(end) if end < len(self.events) else None))
            case "episodic.remember":
                made = Event(parameters["occurred_at"])
                made.id = f"added-{len(self.events)}-{id(made)}"
                self.events.append(made)
                self.events.sort(key=lambda event: -event.occurred_at)
                return Response(made)
            case "episodic.forget":
                if self.pages:
                    self.events = [event for event in self.events if event.id not in parameters["ids"]]
                return Response(None)


def test_pages_by_offset_would_not_hold():
    """The check can fail: rows that move between pages are missing or seen twice, and what is not forgotten is a ghost."""
    moved = run_in_own_loop(paging._beside(Counting(200, pages=True), "s", 10, 1))
    assert moved["missing"] + moved["twice"] > 0
    assert moved["holds"] is False
    kept = run_in_own_loop(paging._beside(Counting(200, pages=False), "s", 10, 1))
    assert kept["ghosts"] > 0
    assert kept["holds"] is False


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"repeats": 0}, "give 1 or more"),
        ({"limits": []}, "one page size"),
        ({"limits": [20, 1000]}, "limit"),
        ({"workload": {"corpus": {"events": 20, "sessions": 2, "questions": 1}}}, "one session"),
    ],
)
def test_bad_input_is_refused(given, said):
    """Before anything is filled."""
    with pytest.raises(MemlabError, match=said):
        paging.measure_point({}, **{"workload": TRAFFIC, "limits": [20], **given})
