"""What to watch: ranges of counters that are known."""

import numpy as np

from memlab.guide.advice import watching
from memlab.guide.figures import Source, check, plain
from tests.guide.planted import run as planted


def engine(rng, *, failed=0, mean_size=2.0, hits=0.5, experiment="01-cache-size", size="quick", **parts):
    made = planted(rng, experiment=experiment, size=size)
    made.summary["candidate"]["statistics"] = {
        "observe": {"calls": 100, "failed": failed},
        "cache": {"hit_ratio": hits, "evictions": 5, "misses": 50, "fills_discarded": 0},
        "batch": {"mean_size": mean_size, "expired": 0, "calls": 100},
        **parts,
    }
    return made


def checked(runs):
    chapter = watching.chapter(runs)
    check(f"{chapter.headline}\n{chapter.text}\n{chapter.rule}", {run.id: Source(run.id, True) for run in runs})
    return chapter


def rows(chapter):
    lines = [plain(line).split("|") for line in chapter.text.splitlines() if line.startswith("| `")]
    return {cells[1].strip().strip("`"): [cell.strip() for cell in cells[2:5]] for cells in lines}


def test_the_range_of_the_sweeps_says_when_to_act():
    """Least and largest value of the sweeps; worse than the worse end means act; a part that was off everywhere is left out."""
    rng = np.random.default_rng(1)
    told = rows(checked([engine(rng, mean_size=1.5, hits=0.4), engine(rng, mean_size=3.0, hits=0.7)]))
    assert told["batch.mean_size"] == ["1.5 to 3.0", "–", "above 3.0"]
    assert told["cache.hit_ratio"] == ["0.40 to 0.70", "–", "below 0.40"]
    assert told["cache.evictions / misses"][0] == "0.10"
    assert not [name for name in told if name.startswith("pool")]


def test_what_overload_moves_is_named():
    """A figure that overload drives out of its range stands in the headline; one that stays does not."""
    rng = np.random.default_rng(2)
    pressed = engine(rng, failed=30, mean_size=2.0, experiment="18-overload")
    chapter = checked([engine(rng), pressed])
    assert "`observe.failed / calls`" in plain(chapter.headline)
    assert "batch.mean_size" not in chapter.headline
    assert rows(chapter)["observe.failed / calls"] == ["0.00%", "30.00%", "above 0.00%"]


def test_smoke_runs_make_no_rule():
    """They show the counters and recommend nothing."""
    rng = np.random.default_rng(3)
    assert checked([engine(rng)]).rule
    assert checked([engine(rng, size="smoke")]).rule == ""


def test_every_counter_is_one_that_an_engine_gives(tmp_path):
    """The names are those of `engine.statistics()` of an engine that has answered a call."""
    from memlab import Memory

    with Memory.open(tmp_path / "lab.duckdb") as memory:
        memory.episodic.remember("the demo moved to Friday")
        memory.episodic.recall("demo")
        statistics = memory.statistics()
    for counter in watching.COUNTERS:
        assert counter.read(statistics) is not None, counter.name
        part, _, rest = counter.name.partition(".")
        assert part == counter.part
        assert rest.split(" ")[0] in statistics[part], counter.name
