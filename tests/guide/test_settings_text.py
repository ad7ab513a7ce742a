"""Settings to copy: TOML that loads, each line with the run that shows it."""

import tomllib

import numpy as np
import pytest

from memlab.errors import MemlabError
from memlab.guide import settings_text
from memlab.guide.figures import plain
from memlab.settings import Settings
from tests.guide.planted import run as planted


def block(text):
    assert text.startswith("``` toml\n")
    return plain(text).removeprefix("``` toml\n").removesuffix("```")


def test_only_what_is_given_stands_there_with_its_run():
    """The run whose candidate has the value is named; sections and keys that were not given are not there."""
    rng = np.random.default_rng(1)
    runs = [planted(rng, parameters={"cache.max_entries": entries}) for entries in (64, 256)]
    text = block(settings_text.to_copy({"cache.max_entries": 256, "pool.limit": 2}, runs))
    assert tomllib.loads(text)["settings"] == {"cache": {"max_entries": 256}, "pool": {"limit": 2}}
    assert f"max_entries = 256  # {runs[1].id}" in text
    assert f"limit = 2  # {runs[0].id}" in text, "none has it: the first is named"
    told = block(settings_text.to_copy({"cache.max_entries": 64}, runs, runs[1].id))
    assert f"max_entries = 64  # {runs[1].id}" in told, "what a chapter says of its run goes before"


def test_a_part_that_is_off_can_be_copied(tmp_path):
    """A section that is None is written as off, and the file loads as such."""
    run = planted(np.random.default_rng(2), parameters={}, candidate={"cache": None})
    text = block(settings_text.to_copy({"cache": None, "batch.window_ms": 4.0}, [run]))
    path = tmp_path / "settings.toml"
    path.write_text(text)
    assert Settings.load(path, environment={}) == Settings.of({"cache": None, "batch.window_ms": 4.0})


def test_nothing_to_copy_is_nothing():
    assert settings_text.to_copy({}, []) == ""


def test_a_setting_that_is_none_is_refused():
    """A chapter cannot recommend what memlab does not know."""
    with pytest.raises(MemlabError, match="max_entries"):
        settings_text.to_copy({"cache.max_entrys": 1}, [planted(np.random.default_rng(3))])
