"""A grid is recorded once, goes on where it stopped, and judges searches by how near they come to its best."""

import json
import math

import pytest

from memlab.errors import MemlabError
from memlab.experiment import tune_grid
from memlab.experiment.tune_grid import GRID, Recorded, judge, points_of, record
from memlab.experiment.warm_start import Proposal
from memlab.measure.stats import Interval
from memlab.settings import Settings
from tests.experiment.test_tune import Planted, flat, modelled, task


def test_a_recording_goes_on_where_it_stopped(tmp_path):
    """Places that stand in the file are not measured again, also when a stop cut the last line."""
    file = tmp_path / "grid.jsonl"
    grid = {"cache.max_entries": (None, 64), "pool.limit": (None, 4)}

    class Stopped(Planted):
        def __call__(self, settings, **given):
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().__call__(settings, **given)

    with pytest.raises(KeyboardInterrupt):
        record(grid, Stopped(), file, repeats=2, seed=1)
    file.write_bytes(file.read_bytes()[:-9])
    file.write_bytes(file.read_bytes().rpartition(b"\n")[0] + b"\n")
    going_on = Planted()
    points = record(grid, going_on, file, repeats=2, seed=1)
    assert len(going_on.seen) == 2
    assert [point.values for point in points] == points_of(grid)
    assert record(grid, going_on, file, repeats=2, seed=1) == points
    assert len(going_on.seen) == 2


def test_a_file_that_is_no_recording_is_refused(tmp_path):
    """One line says where it does not fit."""
    (tmp_path / "grid.jsonl").write_text("{}\n{}\n")
    with pytest.raises(MemlabError, match="is no recorded grid: line 1"):
        tune_grid.read(tmp_path / "grid.jsonl")


def test_what_is_asked_is_answered_by_the_nearest_place(tmp_path):
    """A section on or off and the kind of index come first, then the nearest number."""
    points = record(GRID, Planted(), tmp_path / "grid.jsonl", repeats=2, seed=1)
    recorded = Recorded(points)
    asked = Settings.of({"index.kind": "ivf", "cache.max_entries": 700, "batch": None, "pool.limit": 3})
    nearest = points[recorded.nearest(asked)].values
    assert nearest == {"index.kind": "ivf", "cache.max_entries": 1024, "batch": None, "pool.limit": 4}
    for point in points:
        assert points[recorded.nearest(Settings.of(point.values))] == point


def test_a_search_is_judged_by_the_best_of_the_grid(tmp_path):
    """It asks no more than a fifth of the places, and its gap is that of what it recommends."""

    points = record(GRID, Planted(steep, width=0.005), tmp_path / "grid.jsonl", repeats=2, seed=1)
    judged = judge(task(), points, tmp_path, seeds=(1, 2, 3))
    least = min(steep(Settings.of(point.values)) for point in points) / steep(Settings())
    assert judged["evaluations"].max() <= 0.2 * len(points)
    assert judged["best"].to_list() == pytest.approx([least] * 3)
    assert all(row["gap"] == pytest.approx(row["found"] / row["best"] - 1) for row in judged.to_dicts())
    assert judged["gap"].median() <= 0.05
    assert judged["verdict"].unique().to_list() == ["better"]
    assert math.isclose(judged["floor"][0], 0.005)


def test_a_frame_begins_with_the_best(tmp_path):
    """One row a place, with its settings in words."""
    frame = tune_grid.frame(record(GRID, Planted(), tmp_path / "grid.jsonl", repeats=2, seed=1), "p95")
    assert len(frame) == 81
    assert frame["value"].is_sorted()
    assert "cache off" in " ".join(frame["settings"])


def test_where_nothing_is_better_the_defaults_are_the_best(tmp_path):
    """The defaults count as a place: a search that leaves them is not said to have missed a worse one."""
    points = record(GRID, Planted(), tmp_path / "grid.jsonl", repeats=2, seed=1)
    (row,) = judge(task(), points, tmp_path, seeds=(1,)).to_dicts()
    assert (row["best"], row["found"], row["gap"]) == (1.0, 1.0, 0.0)


def test_chance_is_the_best_of_as_many_places_drawn_at_random():
    """Of four places worth 0, 1, 2 and 3, two drawn at random are on average worth 2/3 at best: worked out by hand."""
    chances = tune_grid._least_of(4, 2)
    assert chances == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0])
    assert sum(chance * worth for chance, worth in zip(chances, range(4), strict=True)) == pytest.approx(2 / 3)
    assert sum(tune_grid._least_of(81, 16)) == pytest.approx(1)
    assert tune_grid._least_of(3, 9) == [1, 0, 0]


def test_a_search_that_finds_its_way_beats_chance(tmp_path):
    """On a planted surface its gap is smaller than that of a random choice, which is told beside it; models count."""
    points = record(GRID, Planted(steep, width=0.005), tmp_path / "grid.jsonl", repeats=2, seed=1)
    judged = judge(task(), points, tmp_path, seeds=range(1, 7), models=modelled)
    assert judged["evaluations"].max() <= 0.2 * len(points)
    assert judged["gap"].mean() < judged["chance"].mean()
    assert judged["as_near"].is_between(0, 1).all()


def steep(settings):
    return flat(settings) * (0.5 if settings.pool is None else 1.0)


def crossed(settings):
    """A cache gains alone and costs beside groups."""
    return flat(settings) * (1.0 if settings.cache is None else 0.6 if settings.batch is None else 2.0)


def paired(settings):
    """Only without groups and without a limit is anything gained: switching off either alone shows nothing of it."""
    return flat(settings) * (0.4 if settings.batch is None and settings.pool is None else 1.0)


def misled():
    """What models propose that are wrong in everything."""
    wrong = {
        "index.kind": "fp16", "cache": True, "cache.max_entries": 64, "cache.policy": "lru", "batch": True,
        "batch.window_ms": 10.0, "batch.limit": 16, "pool": True, "pool.vector_threads": 1,
    }  # fmt: skip
    return [
        Proposal(by=f"{at}", says="wrong", parameters={**wrong, "pool.limit": at}, predicted={"p95": 0.5}) for at in (1, 2, 3)
    ]


@pytest.mark.parametrize("models", [modelled, misled])
@pytest.mark.parametrize("surface", [steep, crossed, paired])
def test_models_are_no_trap(surface, models, tmp_path):
    """Also where sections turn what others do, and where models are wrong: nearer than chance with as many evaluations."""
    points = record(GRID, Planted(surface, width=0.005), tmp_path / "grid.jsonl", repeats=2, seed=1)
    judged = judge(task(), points, tmp_path, seeds=range(1, 9), models=models)
    assert judged["gap"].mean() <= judged["chance"].mean()


@pytest.mark.parametrize(
    ("ahead", "said"),
    [((-0.2, -0.3, -0.1), "better"), ((0.0, -0.1, 0.1), "no difference seen"), ((0.2, 0.1, 0.3), "worse")],
)
def test_a_search_that_is_no_better_than_chance_is_told(ahead, said):
    """By the interval, over searches, of its gap less that of chance; without one nothing is said."""
    assert tune_grid._against_chance(Interval(*ahead)) == said
    assert tune_grid._against_chance(Interval(ahead[0])) == "too few"


@pytest.mark.serial
def test_a_point_is_recorded_judged_and_fought(tmp_path):
    """A small grid on the real engine: all figures of the summary are there, and a smoke run finds nothing."""
    made = tune_grid.measure_point(
        {},
        workload={
            "corpus": {"events": 60, "sessions": 2, "questions": 10},
            "arrivals": {"rate_per_s": 60},
            "duration_s": 0.1,
            "warm_up_s": 0.02,
            "recall_samples": 2,
        },
        repeats=1,
        grid={"cache.max_entries": (None, 64)},
        searches=1,
        out=tmp_path,
    )
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(made.summary))
    assert made.summary["places"] == len(made.places) == 2
    assert not made.summary["finding"]
    assert made.summary["duel"]["ratio"]["value"] > 0
    assert made.summary["verdict"]["chance"] == "too few"
    for given, said in (({"size": "large"}, "quick or smoke"), ({"searches": 0}, "1 or more"), ({"grid": {"a.b": [1]}}, "no ")):
        with pytest.raises(MemlabError, match=said):
            tune_grid.measure_point({}, workload={}, **given)
