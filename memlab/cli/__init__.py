"""The commands: one file each, thin. Heavy parts are imported when a command runs, so that help comes at once."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer

from memlab.cli import bench, compare, guide, leak, load, predict, quality, report, sweep, trace, tune
from memlab.errors import ErrorType, MemlabError
from memlab.operations.listing import operations_command

BAD_INPUT = 2
FAILURE = 1
INTERRUPTED = 130

# Typer brings a click of its own or uses the installed one, by version; the base of its public error is right for both.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="memlab",
    help="Measure an agent memory, and find the settings that it should run with.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _answering_ctrl_c(command: Callable[..., None]) -> Callable[..., None]:
    """Return *command*, saying in a line what an interruption left: Typer would only end with its code."""

    @functools.wraps(command)
    def interruptible(*values: Any, **given: Any) -> None:
        try:
            command(*values, **given)
        except KeyboardInterrupt as error:
            raise typer.Exit(_fail(str(error) or "interrupted; what was done is kept", INTERRUPTED)) from None

    return interruptible


_COMMANDS: dict[str, Callable[..., None]] = {
    "guide": guide.guide,
    "report": report.report,
    "sweep": sweep.sweep,
    "bench": bench.bench,
    "tune": tune.tune,
    "load": load.load,
    "leak": leak.leak,
    "compare": compare.compare,
    "quality": quality.quality,
    "operations": operations_command,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_answering_ctrl_c(_command))

_GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "predict": (predict.HELP, {"cache": predict.cache}),
    "trace": (trace.HELP, {"record": trace.record, "replay": trace.replay, "summary": trace.summary}),
}
for _name, (_help, _commands) in _GROUPS.items():
    _group = typer.Typer(help=_help, rich_markup_mode=None)
    for _inner, _command in _commands.items():
        _group.command(_inner)(_answering_ctrl_c(_command))
    app.add_typer(_group, name=_name)


@app.callback(invoke_without_command=True)
def _program(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(BAD_INPUT)


def main(arguments: list[str] | None = None) -> int:
    """Run the command that *arguments* (default: the process's) name; return the exit code: 0, 1 for failure, 2 for bad input."""
    try:
        code: Any = app(arguments, prog_name="memlab", standalone_mode=False)
    except _UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
        return _fail(f"{error.format_message()}{where}", BAD_INPUT)
    except MemlabError as error:
        bad_input = error.type in (ErrorType.VALIDATION, ErrorType.NOT_FOUND)
        return _fail(error.text, BAD_INPUT if bad_input else FAILURE)
    except BrokenPipeError:
        return FAILURE  # whoever read our output has gone
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"memlab: {' '.join(text.split())}\n")
    return code
