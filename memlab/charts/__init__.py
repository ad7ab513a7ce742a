"""Data frame in, altair chart out. Charts draw what they are given; they do not compute."""

from memlab.charts import lean_import  # noqa: F401  before anything imports altair
from memlab.charts.comparison import response_times
from memlab.charts.curves import By, ratio_curve, share_curve, stack
from memlab.charts.intervals import intervals
from memlab.charts.isolation import checked
from memlab.charts.lines import lines
from memlab.charts.loads import by_callers, by_way, stalls, trials
from memlab.charts.models import predictions, trade
from memlab.charts.operations import by_size, costs, exponents
from memlab.charts.reach import reaches
from memlab.charts.theme import operation_colour, svg_to_pdf, to_svg
from memlab.charts.traffic import traffic
from memlab.charts.ways import estimates, regrets
from memlab.charts.workflows import steps, whole_runs

__all__ = [
    "By",
    "by_callers",
    "by_size",
    "by_way",
    "checked",
    "costs",
    "estimates",
    "exponents",
    "intervals",
    "lines",
    "operation_colour",
    "predictions",
    "ratio_curve",
    "reaches",
    "regrets",
    "response_times",
    "share_curve",
    "stack",
    "stalls",
    "steps",
    "svg_to_pdf",
    "to_svg",
    "trade",
    "traffic",
    "trials",
    "whole_runs",
]
