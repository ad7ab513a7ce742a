"""Settings as TOML that can be copied: each line followed by the run that shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memlab.experiment.results import Run
from memlab.guide.figures import Figure, mark, name_run
from memlab.settings import Settings


def to_copy(settings: Mapping[str, Any], runs: Sequence[Run], shown_by: str = "") -> str:
    """Return settings in a block of code, each with the run that measured it; nothing where there are none.

    Args:
        settings: by dotted key.
        runs: among which is the one that shows each: the first whose candidate has the value, or else the first.
        shown_by: identity of the one that shows all of them, where no candidate does.
    Raises:
        MemlabError: VALIDATION `settings`: an unknown key, or a value out of bounds.
    """
    if not settings:
        return ""
    whole = Settings.of(settings).to_toml()
    sections = {key.partition(".")[0] for key in settings}
    shown = [(section, line) for section, line in _lines(whole) if (section or _name(line)) in sections]
    kept = [(section, line) for section, line in shown if not _name(line) or _dotted(section, line) in settings]
    text = with_runs(kept, lambda key: shown_by or _shows(runs, key, settings[key]))
    head = "[settings]\n" if any(not section for section, _ in kept) else ""
    return f"``` toml\n# To copy; beside each line stands the run that shows it.\n{head}{text}\n```"


def of_all(settings: Settings, run_of: Callable[[str], str], sections: Sequence[str] | None = None) -> str:
    """Return whole settings as TOML, each line followed by the run that *run_of* names for its dotted key.

    Args:
        sections: the ones wanted; default: all.
    """
    lines = [
        (section, line)
        for section, line in _lines(settings.to_toml())
        if sections is None or (section or _name(line)) in sections or line == "[settings]"
    ]
    return with_runs(lines, run_of)


def with_runs(lines: Sequence[tuple[str, str]], run_of: Callable[[str], str]) -> str:
    """Return lines of TOML, given with their sections; those that set something name their run."""
    told = []
    for section, line in lines:
        name, equals, value = line.partition(" = ")
        if equals:
            run = run_of(_dotted(section, line))
            told.append(f"{name} = {mark(Figure(value, (run,)))}  # {name_run(run)}")
        else:
            told.append(line)
    return "\n".join(told).strip()


def _lines(toml: str) -> list[tuple[str, str]]:
    """Return every line with the section that it stands in."""
    found = []
    section = ""
    for line in toml.splitlines():
        if line.startswith("["):
            section = line.strip("[]").removeprefix("settings").removeprefix(".")
        found.append((section, line))
    return found


def _name(line: str) -> str:
    name, equals, _ = line.partition(" = ")
    return name if equals else ""


def _dotted(section: str, line: str) -> str:
    return f"{section}.{_name(line)}" if section else _name(line)


def _shows(runs: Sequence[Run], key: str, value: Any) -> str:
    section, _, name = key.partition(".")
    for run in runs:
        candidate = run.settings.get("candidate") or {}
        has = candidate.get(section)
        if (has if not name else (has or {}).get(name)) == value and (name or section in candidate):
            return run.id
    return runs[0].id
