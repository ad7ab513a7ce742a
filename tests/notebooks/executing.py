"""Executes a notebook's cells in this process: seconds less than a kernel, and its measuring can be replaced by planted runs."""

import ast
import contextlib
import json
from typing import Any, NamedTuple

import memlab.experiment.comparison


class Planted(NamedTuple):
    """What a notebook takes for a measurement."""

    samples: Any
    summary: dict[str, Any]


def execute(path, parameters, *, measured=None):
    """Execute the cells of *path* in order and return their names, and the notebook with what each cell showed.

    Args:
        parameters: replace those of the cell tagged parameters, as papermill would.
        measured: what measure_point answers, in place of a measurement.
    """
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names = {"__name__": "__main__"}
    with contextlib.chdir(path.parent), _replaced(measured):
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            cell["outputs"] = [_output(value) for value in _run("".join(cell["source"]), names) if value is not None]
            if "parameters" in cell["metadata"].get("tags", []):
                assert set(parameters) <= set(names), f"{path.name} has no such parameters"
                names.update(parameters)
    return names, notebook


@contextlib.contextmanager
def _replaced(measured):
    real = memlab.experiment.comparison.measure_point
    if measured is not None:
        memlab.experiment.comparison.measure_point = lambda point, **given: measured
    try:
        yield
    finally:
        memlab.experiment.comparison.measure_point = real


def _run(source, names):
    """Run a cell; return the value of its last expression, where it ends in one."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)  # the notebook is ours
    return [] if last is None else [eval(compile(ast.Expression(last.value), "cell", "eval"), names)]  # noqa: S307


def _output(value):
    shown = getattr(value, "_repr_mimebundle_", None)
    data = shown(None, None) if shown is not None else {"text/plain": repr(value)}
    data = data[0] if isinstance(data, tuple) else data
    return {"output_type": "execute_result", "metadata": {}, "execution_count": 1, "data": data}
