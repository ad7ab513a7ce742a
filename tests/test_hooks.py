"""Hooks answer, or one clear error says what is wrong with them."""

import numpy as np
import pytest

from memlab.errors import ErrorType, MemlabError, validation
from memlab.hooks import MAX_HYPOTHETICAL, Hooks


def failing(*_):
    raise RuntimeError("no model")


def refusing(*_):
    raise validation("vector", "not this")


def test_answers_of_hooks_pass():
    """What fits comes back: texts as they are, scores as numbers of Python."""
    hooks = Hooks(expand=str.upper, rerank=lambda query, texts: np.arange(len(texts)), summarise=" ".join)
    assert hooks.ask("expand", ("tea",)) == "TEA"
    assert hooks.ask("rerank", ("tea", ("a", "b"))) == [0.0, 1.0]
    assert hooks.ask("summarise", (("a", "b"),)) == "a b"


def test_a_hook_that_was_not_given_is_bad_input():
    """Asking for a hook that nobody gave says how to give one."""
    with pytest.raises(MemlabError, match="no hook 'rerank' was given") as caught:
        Hooks().ask("rerank", ("tea", ()))
    assert (caught.value.type, caught.value.reason) == (ErrorType.VALIDATION, "hook")


@pytest.mark.parametrize(
    ("name", "hook", "says"),
    [
        ("expand", failing, "RuntimeError"),
        ("expand", refusing, "not this"),
        ("expand", lambda query: None, "returned NoneType; it must return text"),
        ("expand", lambda query: " ", "not all blank"),
        ("expand", lambda query: "a" * (MAX_HYPOTHETICAL + 1), "65,536 fit"),
        ("summarise", len, "returned int"),
        ("rerank", lambda query, texts: [1.0], "1 scores for 2 texts"),
        ("rerank", lambda query, texts: [1.0, float("nan")], "not a finite number"),
        ("rerank", lambda query, texts: ["a", "b"], "ValueError"),
        ("rerank", lambda query, texts: "ab", "returned str"),
        ("rerank", lambda query, texts: 1.0, "returned float"),
    ],
)
def test_a_hook_that_fails_is_one_clear_error(name, hook, says):
    """Whatever a hook raises or returns wrongly is INTERNAL `hook`, one line that names it."""
    arguments = ("tea", ("a", "b")) if name == "rerank" else ("tea",)
    with pytest.raises(MemlabError, match=says) as caught:
        Hooks(**{name: hook}).ask(name, arguments)
    assert (caught.value.type, caught.value.reason) == (ErrorType.INTERNAL, "hook")
    assert f"the hook {name}" in caught.value.text
    assert "\n" not in caught.value.text


def test_a_hook_is_a_function():
    """Anything that cannot be called is refused when it is given."""
    with pytest.raises(MemlabError, match="the hook rerank is str"):
        Hooks(rerank="model")
