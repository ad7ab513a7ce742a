"""Sliders for cache, window, pool and index over predictions, and a button that runs the missing point.

The sliders look up a table that was computed before, so the panel answers at once, also in a page without a kernel or a network.
"""

from __future__ import annotations

import html
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anywidget
import polars
import traitlets

from memlab.errors import MemlabError, validation

FIGURES = ("hit_ratio", "p50_ms", "p95_ms", "mean_ms")
LABELS: Mapping[str, str] = {
    "max_entries": "cache (entries)",
    "window_ms": "batch window (ms)",
    "pool_limit": "pool limit",
    "index": "index",
}
_SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
_LIVE = """
export default {
  render({ model, el }) {
    const shown = panel(el, model.get("state"), (place) => model.send({ place }));
    model.on("change:state", () => shown.changed(model.get("state")));
    return shown.end;
  },
};
"""


class WhatIf(anywidget.AnyWidget):
    """The panel.

    Args:
        predicted: a row a setting, every combination once: the columns of `LABELS`, and `FIGURES` with their `_low` and `_high`.
        measured: what runs measured, in the same columns and `run`.
        run: measures the setting of a place and returns the new *measured* and the new *predicted*; it is called in a thread of
            its own. None: the panel cannot run anything.
        at: the setting that it begins with; default: the first.
    Raises:
        MemlabError: VALIDATION `shape`: combinations are missing or twice there.
    """

    _esm = _SCRIPT + _LIVE
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        predicted: polars.DataFrame,
        measured: polars.DataFrame,
        run: Callable[[dict[str, Any]], tuple[polars.DataFrame, polars.DataFrame]] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
    ) -> None:
        self._values = {name: predicted[name].unique(maintain_order=True).to_list() for name in LABELS}
        self._at = dict(at or {})
        self._run = run
        super().__init__(state=self._state(predicted, measured, ""))
        self.on_msg(self._asked)

    def run_point(self, setting: Mapping[str, Any]) -> None:
        """Measure a setting, as the button does, and wait for it."""
        if self._run is None:
            return
        self.state = {**self.state, "busy": "running this point …"}
        try:
            predicted, measured = self._run(dict(setting))
        except MemlabError as error:
            self.state = {**self.state, "busy": ""}
            self.state = {**self.state, "busy": f"failed: {error.text}"}
        else:
            self.state = self._state(predicted, measured, "")

    def _asked(self, widget: object, content: Mapping[str, Any], buffers: object) -> None:
        place = content.get("place")
        if not isinstance(place, list) or len(place) != len(LABELS) or self.state["busy"].startswith("running"):
            return
        setting = {name: values[at] for (name, values), at in zip(self._values.items(), place, strict=True)}
        threading.Thread(target=self.run_point, args=(setting,), daemon=True).start()

    def _state(self, predicted: polars.DataFrame, measured: polars.DataFrame, busy: str) -> dict[str, Any]:
        rows: dict[tuple[int, ...], dict[str, Any]] = {}
        for row in predicted.to_dicts():
            rows[self._place(row)] = _figures(row)
        count = 1
        for values in self._values.values():
            count *= len(values)
        if len(rows) != count or len(predicted) != count:
            raise validation("shape", f"{len(predicted)} settings for {count} places of the sliders; each must be there once")
        runs = [
            {"place": self._place(row), "id": row["run"], **_figures(row)}
            for row in measured.to_dicts()
            if all(row[name] in values for name, values in self._values.items())
        ]
        axes = [
            {
                "label": LABELS[name],
                "values": values,
                "shown": [
                    "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values
                ],
                "at": values.index(self._at[name]) if name in self._at else 0,
            }
            for name, values in self._values.items()
        ]
        return {"axes": axes, "rows": [rows[place] for place in sorted(rows)], "runs": runs, "busy": busy}

    def _place(self, row: Mapping[str, Any]) -> tuple[int, ...]:
        return tuple(values.index(row[name]) for name, values in self._values.items())

    def to_html(self) -> str:
        """Return the panel as HTML that needs neither kernel nor network; its button is off."""
        name = f"what-if-{uuid.uuid4().hex[:12]}"
        state = json.dumps({**self.state, "busy": ""}, allow_nan=False).replace("</", "<\\/")
        return (
            f'<div id="{name}"></div>\n<script>(() => {{\n{_SCRIPT}\n'
            f'panel(document.getElementById("{name}"), {state}, null);\n}})();</script>'
        )

    def save(self, path: str | Path, *, title: str = "What if?", note: str = "") -> None:
        """Write the panel as a page of its own."""
        page = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>\n'
            f'<body style="font-family: system-ui, sans-serif">\n<h1>{html.escape(title)}</h1>\n<p>{html.escape(note)}</p>\n'
            f"{self.to_html()}\n</body></html>\n"
        )
        Path(path).write_text(page, encoding="utf-8")

    def _repr_mimebundle_(self, **given: Any) -> Any:
        """Show the live panel where there is a kernel, and the same as HTML where there is none."""
        bundle = super()._repr_mimebundle_(**given)
        data, rest = (bundle[0], bundle[1:]) if isinstance(bundle, tuple) else (bundle, None)
        data = {**(data or {}), "text/html": self.to_html()}
        return data if rest is None else (data, *rest)


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]} for name in FIGURES}
