"""What an agent does with its memory in one go: sequences of operations, each making use of what the earlier ones answered.

They are data: a step names its operation and gives its parameters, in which `Made` stands for a text that differs each time and
`Taken` for what an earlier step answered.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from memlab.errors import nearest, validation
from memlab.operations.registry import Examples

_NOTHING: Any = object()


class Made(NamedTuple):
    """A text made up for each run: a memory's content, a question about one, or a tag in use."""

    kind: Literal["content", "question", "tag"]


class Taken(NamedTuple):
    """What an earlier step answered: a field, or a number for an item of a list, and so on, dots between."""

    step: str
    path: str


@dataclasses.dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        name: by which later steps speak of it; one of its own in the workflow.
        given: parameters; `Made` and `Taken` may stand anywhere in them.
    """

    name: str
    operation: str
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Workflow:
    """Steps, taken in order, each when the one before is answered.

    Attributes:
        about: what it is for, in a sentence.
    """

    name: str
    about: str
    steps: tuple[Step, ...]


LEARN = Workflow(
    "learn_from_experience",
    "Remember what was done, look for what is like it, consolidate it, and try the procedure that comes of it.",
    (
        Step("first", "episodic.remember", {"content": Made("content"), "tags": ["work"], "context": {"action": "look up"}}),
        Step("second", "episodic.remember", {"content": Made("content"), "tags": ["work"], "context": {"action": "repair"}}),
        Step("third", "episodic.remember", {"content": Made("content"), "tags": ["work"], "context": {"action": "report"}}),
        Step("recall", "episodic.recall", {"query": Made("question"), "limit": 10}),
        Step("consolidate", "consolidation.consolidate", {"strategy": "speed", "limit": 50}),
        Step("known", "semantic.search", {"query": Made("question"), "limit": 5}),
        Step(
            "procedure",
            "procedural.create",
            {"name": Made("question"), "steps": ["look up {thing}", "repair {thing}"], "parameters": ["thing"]},
        ),
        Step("run", "procedural.execute", {"id": Taken("procedure", "id"), "inputs": {"thing": "the engine"}}),
        Step("outcome", "procedural.record_outcome", {"run_id": Taken("run", "id"), "success": True}),
        Step("worth", "procedural.get_effectiveness", {"id": Taken("procedure", "id")}),
    ),
)
TASKS = Workflow(
    "task_management",
    "Set a goal, plan two tasks of which one waits for the other, be reminded, do them, and see how far the goal is.",
    (
        Step("goal", "prospective.create_goal", {"name": Made("question")}),
        Step("before", "prospective.create_task", {"title": Made("content"), "goal": Taken("goal", "id"), "priority": "high"}),
        Step(
            "after",
            "prospective.create_task",
            {"title": Made("content"), "goal": Taken("goal", "id"), "depends_on": [Taken("before", "id")]},
        ),
        Step("remind", "prospective.register_trigger", {"action": Made("question"), "after_task": Taken("before", "id")}),
        Step("pending", "prospective.get_pending_tasks", {"limit": 10}),
        Step("begin", "prospective.update_task", {"id": Taken("before", "id"), "status": "in_progress"}),
        Step("done", "prospective.complete_task", {"id": Taken("before", "id")}),
        Step("fired", "prospective.check_triggers", {"limit": 20, "events": 100}),
        Step("done_too", "prospective.complete_task", {"id": Taken("after", "id")}),
        Step("progress", "prospective.get_goal", {"id": Taken("goal", "id")}),
        Step("list", "prospective.list_tasks", {"goal": Taken("goal", "id")}),
    ),
)
DISCOVERY = Workflow(
    "knowledge_discovery",
    "Find the operation, retrieve over all layers, follow what is related and who is connected, and write a prompt of it.",
    (
        Step("which", "discovery.search", {"query": "find what is known about a topic", "detail": "description", "limit": 5}),
        Step("retrieve", "rag.retrieve", {"query": Made("question"), "limit": 10}),
        Step("facts", "semantic.search", {"query": Made("question"), "limit": 5}),
        Step("related", "semantic.search_related", {"id": Taken("facts", "0.id"), "limit": 5}),
        Step("topics", "semantic.search_by_topic", {"topics": [Made("tag")], "limit": 10}),
        Step("entities", "graph.search_entities", {"query": "the engine", "limit": 3}),
        Step("around", "graph.get_neighborhood", {"entity": Taken("entities", "0.id"), "hops": 2, "limit": 20}),
        Step("prompt", "rag.get_synthesis_prompt", {"query": Made("question"), "budget_tokens": 1_000}),
    ),
)
HEALTH = Workflow(
    "memory_health",
    "Look how the memory is, what it lacks and repeats, and what should be done.",
    (
        Step("health", "meta.memory_health"),
        Step("statistics", "meta.get_memory_stats"),
        Step("quality", "meta.get_quality_metrics"),
        Step("load", "meta.get_cognitive_load"),
        Step("gaps", "meta.find_gaps", {"limit": 10}),
        Step("duplicates", "semantic.deduplicate", {"similarity": 0.98, "limit": 200, "dry_run": True}),
        Step("consolidation", "consolidation.get_status"),
        Step("advice", "meta.get_recommendations"),
    ),
)
WORKFLOWS = (LEARN, TASKS, DISCOVERY, HEALTH)


def lookup(name: str) -> Workflow:
    """Return the workflow *name*.

    Raises:
        MemlabError: VALIDATION `unknown_workflow`, with the nearest known name.
    """
    for one in WORKFLOWS:
        if one.name == name:
            return one
    raise validation("unknown_workflow", f"no workflow '{name}'{nearest(name, [one.name for one in WORKFLOWS])}")


def parameters(step: Step, answers: Mapping[str, Any], chance: random.Random, known: Examples) -> dict[str, Any] | None:
    """Return a step's parameters.

    Args:
        answers: of the steps before, by name.
        known: of which texts are made.
    Returns:
        None where a step before answered nothing that this one could take up: it is then left out.
    """
    filled = _filled(dict(step.given), answers, chance, known)
    return None if filled is _NOTHING else filled


def _filled(value: Any, answers: Mapping[str, Any], chance: random.Random, known: Examples) -> Any:
    if isinstance(value, Made):
        return _made(value.kind, chance, known)
    if isinstance(value, Taken):
        return _taken(answers.get(value.step, _NOTHING), value.path)
    if isinstance(value, Mapping):
        table = {name: _filled(inner, answers, chance, known) for name, inner in value.items()}
        return _NOTHING if any(inner is _NOTHING for inner in table.values()) else table
    if isinstance(value, list):
        filled = [_filled(inner, answers, chance, known) for inner in value]
        return _NOTHING if any(inner is _NOTHING for inner in filled) else filled
    return value


def _made(kind: str, chance: random.Random, known: Examples) -> str:
    if kind == "tag":
        return chance.choice(known.tags)
    if kind == "question":
        return known.question(chance)
    return f"{chance.choice(known.contents)} {chance.randrange(1_000_000)}"


def _taken(answer: Any, path: str) -> Any:
    for name in path.split("."):
        if answer is _NOTHING:
            break
        if name.isdigit():
            answer = answer[int(name)] if isinstance(answer, Sequence) and len(answer) > int(name) else _NOTHING
        else:
            answer = getattr(answer, name, _NOTHING)
    return answer
