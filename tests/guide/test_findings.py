"""What runs allow to say: the cheapest setting that cannot be told from the best, and nothing of noise."""

import json

import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.experiment import results
from memlab.guide import findings
from memlab.guide.figures import Figure
from memlab.guide.findings import choose, finding, judge
from tests.guide.planted import run, suspect


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def caches(rng, ratios, **drawn):
    return [
        run(rng, parameters={"cache.max_entries": size, "cache.ttl_s": ttl}, ratio=ratio, **drawn)
        for (size, ttl), ratio in ratios.items()
    ]


def test_the_smallest_cache_as_good_as_the_best_is_chosen(rng):
    """Where the curve is flat the smallest size wins; where it falls, the size at which it becomes flat."""
    runs = caches(rng, {(16, None): 0.8, (64, None): 0.5, (256, None): 0.3, (1024, None): 0.3, (4096, None): 0.3})
    choice = choose(runs, "p95", cheapest=["cache.max_entries", "cache.ttl_s"])
    assert choice.verdict == "better"
    assert choice.recommended == {"cache.max_entries": 256, "cache.ttl_s": None}
    assert choice.evidence == choice.chosen_id == choice.chosen.id


def test_ties_go_to_the_second_setting_too(rng):
    """Among equal sizes the shortest time to live wins, and null is its longest."""
    runs = caches(rng, {(64, None): 0.3, (64, 2.0): 0.3, (64, 9.0): 0.3, (256, 2.0): 0.3})
    choice = choose(runs, "mean", cheapest=["cache.max_entries", "cache.ttl_s"])
    assert choice.recommended == {"cache.max_entries": 64, "cache.ttl_s": 2.0}


def test_a_sweep_of_nothing_finds_nothing(rng):
    """Forty sweeps of ten points without any difference: at most the agreed 5 % of them, here two, may claim one."""
    claims = 0
    for _ in range(40):
        runs = caches(rng, {(size, None): 1.0 for size in range(1, 11)}, repeats=5, spread=0.2, figures=["mean"])
        claims += choose(runs, "mean", cheapest=["cache.max_entries"]).verdict != "no difference seen"
    assert claims <= 2


def test_figures_judged_together_share_the_level(rng):
    """Four hundred runs of nothing: mean and p95 together claim no more often than one figure may; a real gain of one is told."""
    runs = [run(rng, ratio=1.0, repeats=6, spread=0.2, figures=["mean", "p95"]) for _ in range(400)]
    told = [judge(one.summary, "mean", "p95") != "no difference seen" for one in runs]
    apart = [{judge(one.summary, "mean"), judge(one.summary, "p95")} != {"no difference seen"} for one in runs]
    assert sum(told) <= 30  # 20 expected at 5 %; 30 is beyond 0.99 of the binomial
    assert sum(apart) > sum(told)
    gain = run(rng, ratio=1.0, repeats=6, spread=0.02, figures=["p95"])
    faster = run(rng, ratio=0.6, repeats=6, spread=0.02, figures=["mean"])
    both = faster.summary | {"ratio": gain.summary["ratio"] | {"mean": faster.summary["ratio"]["mean"]}}
    assert judge(both, "p95") == "no difference seen"
    assert judge(both, "mean", "p95") == "better"
    harm = both | {"ratio": both["ratio"] | {"p95": {"value": 1.5, "low": 1.4, "high": 1.6}}}
    assert judge(harm, "mean", "p95") == "worse"


def test_without_a_difference_the_reference_stays(rng):
    """No difference seen: the reference's own settings are recommended, a section that it has off stays off."""
    runs = caches(rng, {(16, None): 1.0, (64, None): 1.0})
    choice = choose(runs, "p95", cheapest=["cache.max_entries"])
    assert choice.verdict == "no difference seen"
    assert choice.chosen_id is None
    assert choice.recommended == {"cache": None}
    on = [run(rng, reference={"pool.limit": 4}, parameters={"pool.limit": limit}) for limit in (1, 2)]
    assert choose(on, "p95", cheapest=["pool.limit"]).recommended == {"pool.limit": 4}


def test_what_the_reference_reaches_against_itself_is_no_finding(rng):
    """A ratio that lies inside the noise floor of the A/A point is not a difference, however narrow its interval."""
    runs = caches(rng, {(64, None): 0.9}, spread=0.001, each=400)
    assert choose(runs, "mean", cheapest=["cache.max_entries"]).verdict == "better"
    null = run(rng, parameters={"cache": None}, candidate={"cache": None}, ratio=1.25, spread=0.001)
    assert null.summary["null"]
    choice = choose([*runs, null], "mean", cheapest=["cache.max_entries"])
    assert choice.verdict == "no difference seen"
    assert null not in choice.runs


def test_worse_is_not_chosen(rng):
    """Where every point is slower than the reference, the reference stays."""
    runs = caches(rng, {(16, None): 1.6, (64, None): 1.8})
    assert choose(runs, "p95", cheapest=["cache.max_entries"]).verdict == "no difference seen"


def test_suspect_runs_are_left_out(rng):
    """The best point does not count when it is marked suspect; when all are, there is no finding."""
    runs = caches(rng, {(16, None): 0.5, (64, None): 0.1})
    runs[1] = suspect(runs[1])
    assert choose(runs, "p95", cheapest=["cache.max_entries"]).recommended == {"cache.max_entries": 16, "cache.ttl_s": None}
    assert choose([suspect(one) for one in runs], "p95", cheapest=["cache.max_entries"]).verdict == "too few"


def test_smoke_runs_make_no_finding(rng):
    """Whatever a smoke run measured, it proves that it runs."""
    runs = caches(rng, {(16, None): 0.1, (64, None): 0.05}, size="smoke")
    choice = choose(runs, "p95", cheapest=["cache.max_entries"])
    assert choice.verdict == judge(runs[0].summary) == "smoke"
    said = finding("p95 {p95:.2f}", choice.verdict, choice=choice, p95=choice.of("summary.ratio.p95"))
    assert str(said) == findings.SMOKE
    assert not said.scalars
    assert not said.recommended


def test_too_few_repeats_make_no_finding(rng):
    """Below five repeats nothing is said."""
    runs = caches(rng, {(16, None): 0.1}, repeats=3)
    assert choose(runs, "p95", cheapest=["cache.max_entries"]).verdict == "too few"
    assert judge(runs[0].summary) == "too few"


def test_no_runs_is_a_clear_error():
    """A finding of nothing says what to do."""
    with pytest.raises(MemlabError, match="memlab sweep"):
        choose([], "p95", cheapest=["cache.max_entries"])


def batches(rng, ratios):
    rate = "workload.arrivals.rate_per_s"
    return [
        run(
            rng,
            experiment="02-batch-window",
            reference={"cache": None, "batch": None},
            candidate={"cache": None, "batch.window_ms": window},
            parameters={rate: of, "batch.window_ms": window},
            ratio=ratio,
        )
        for (of, window), ratio in ratios.items()
    ]


RATE = "workload.arrivals.rate_per_s"


def test_the_heaviest_traffic_decides_among_what_harms_nowhere(rng):
    """A window that is best under load and worse in light traffic gives way to one that is as good and harmless."""
    runs = batches(rng, {(100, 0.0): 1.5, (100, 2.0): 1.0, (900, 0.0): 0.3, (900, 2.0): 0.3})
    choice = choose(runs, "p95", cheapest=["batch.window_ms"], panel=RATE)
    assert choice.recommended == {"batch.window_ms": 2.0}
    assert [panel.value for panel in choice.panels] == [100, 900]
    assert [panel.verdict for panel in choice.panels] == ["no difference seen", "better"]
    assert choice.of("summary.ratio.p95").runs == (runs[3].id,)
    assert choice.lightest("summary.ratio.p95").runs == (runs[1].id,)


def test_throughput_counts_the_other_way(rng):
    """More answers a second are better; here all settings answer what is offered, so no difference is seen."""
    runs = caches(rng, {(16, None): 0.5, (64, None): 0.5})
    assert choose(runs, "throughput", cheapest=["cache.max_entries"]).verdict == "no difference seen"
    assert choose(runs, "mean", cheapest=["cache.max_entries"]).verdict == "better"


def test_a_finding_is_filled_from_the_run(rng):
    """The sentence holds the numbers, the scalars keep them with their run."""
    (one,) = caches(rng, {(64, None): 0.4})
    choice = choose([one], "p95", cheapest=["cache.max_entries"])
    said = finding(
        "{entries:,} entries, ttl {ttl}: p95 {p95:.2f±} times",
        choice.verdict,
        title="{entries} entries",
        choice=choice,
        entries=choice.of("parameters.cache.max_entries"),
        ttl=choice.of("parameters.cache.ttl_s", unit="s", null="none"),
        p95=choice.of("summary.ratio.p95"),
        unused=3,
    )
    ratio = one.summary["ratio"]["p95"]
    assert str(said) == f"64 entries, ttl none: p95 {ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) times"
    assert said.scalars["entries"] == Figure(64, (one.id,), path="parameters.cache.max_entries")
    assert said.headline == "64 entries"
    assert "unused" not in said.scalars
    assert said.evidence == one.id


def test_a_recorded_finding_is_read_back(rng, tmp_path):
    """What a cell shows is kept in the notebook and read back equal; a notebook without one is a clear error."""
    (one,) = caches(rng, {(64, None): 0.4})
    choice = choose([one], "p95", cheapest=["cache.max_entries"])
    mean = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 5, "note": None}
    said = finding("{p95:.2f} {mean:.1f±}", choice.verdict, choice=choice, p95=choice.of("summary.ratio.p95"), mean=mean)
    assert str(said).endswith("0.5 (0.4 to 0.6)")
    data = said._repr_mimebundle_()
    assert data["text/markdown"] == f"**{said}**"
    path = tmp_path / "executed.ipynb"
    cell = {"cell_type": "code", "outputs": [{"output_type": "execute_result", "data": data}]}
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown"}, cell]}))
    assert findings.read_finding(path) == said
    with pytest.raises(MemlabError, match=r"executed\.ipynb"):
        findings.read_chart(path)
    path.write_text(json.dumps({"cells": []}))
    with pytest.raises(MemlabError, match="no finding"):
        findings.read_finding(path)


def test_one_run_judges_itself(rng):
    """A point's verdict is that of its ratio's interval, in both directions."""
    verdicts = [judge(run(rng, ratio=ratio, spread=0.02).summary, "mean") for ratio in (0.5, 1.0, 2.0)]
    assert verdicts == ["better", "no difference seen", "worse"]


def test_tables_show_what_was_measured(rng):
    """The table of a run holds its figures under their names, the percentiles come with their intervals."""
    one = run(rng, parameters={"cache.max_entries": 64}, ratio=0.5)
    shown = {row["figure"]: row for row in findings.table(one.summary).iter_rows(named=True)}
    assert shown["p95 (ms)"]["ratio"] == one.summary["ratio"]["p95"]["value"]
    assert shown["hit ratio"]["reference"] is None
    assert shown["hit ratio"]["candidate"] == one.summary["candidate"]["hit_ratio"]["value"]
    drawn = findings.percentiles(one.summary)
    assert drawn.height == 6
    assert set(drawn["setting"]) == {"reference", "candidate"}
    by_operation = findings.percentiles(one.summary, by_operation=True)
    assert set(by_operation["group"]) == set(one.summary["reference"]["by_operation"])
    assert results.frame([one])["ratio_p95"][0] == one.summary["ratio"]["p95"]["value"]
