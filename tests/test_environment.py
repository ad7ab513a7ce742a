"""pyproject.toml, requirements.lock, environment.yml and the Makefile agree."""

import os
import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rattler import MatchSpec


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def lock(root):
    """The lock as {name: [block, …]}: a package has a block for every platform that needs another version."""
    blocks: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\S)", (root / "requirements.lock").read_text()):
        if match := re.match(r"([A-Za-z0-9_.-]+)(\[[^]]*\])?==", block):
            blocks.setdefault(canonicalize_name(match[1]), []).append(block)
    return blocks


@pytest.fixture(scope="module")
def conda(root):
    return yaml.safe_load((root / "environment.yml").read_text())


def test_conda_specs_parse_strictly(conda):
    """Every conda entry of environment.yml parses strictly, as py-rattler reads it. Nothing was solved: no channel was asked."""
    specs = [entry for entry in conda["dependencies"] if isinstance(entry, str)]
    assert [MatchSpec(spec, strict=True).name.normalized for spec in specs] == ["python", "pip"]
    with pytest.raises(Exception, match=r"(?i)version|parse|invalid"):
        MatchSpec("python >=3.11,,<3.14", strict=True)


def test_python_ranges_agree(root, project, conda):
    """conda, pip and make ask for the same versions of Python, and the lock was compiled for the oldest of them."""
    wanted = SpecifierSet(project["project"]["requires-python"])
    python = MatchSpec(conda["dependencies"][0], strict=True)
    assert SpecifierSet(str(python.version)) == wanted
    low, high = re.search(r"\((\d+, \d+)\) <= sys\.version_info\[:2\] < \((\d+, \d+)\)", (root / "Makefile").read_text()).groups()
    assert SpecifierSet(f">={low.replace(', ', '.')},<{high.replace(', ', '.')}") == wanted
    assert f"--python-version {low.replace(', ', '.')} " in (root / "Makefile").read_text()


def test_conda_installs_the_lock_through_pip(root, conda):
    """environment.yml holds python, pip and the lock; the project itself is the next step, which it says."""
    assert conda["dependencies"][2:] == [{"pip": ["-r requirements.lock"]}]
    assert "pip install --no-deps --no-build-isolation -e ." in (root / "environment.yml").read_text()


def _requirements(project):
    declared = list(project["project"]["dependencies"]) + list(project["build-system"]["requires"])
    for extra in project["project"]["optional-dependencies"].values():
        declared += extra
    return [one for one in map(Requirement, declared) if one.name != "memlab"]


def test_every_dependency_is_in_the_lock(project, lock):
    """Each dependency of pyproject.toml, extras and the build's own included, is locked to a version in its range."""
    for requirement in _requirements(project):
        blocks = lock.get(canonicalize_name(requirement.name))
        assert blocks, f"{requirement.name} is not in requirements.lock; run make lock"
        for block in blocks:
            version = re.search(r"==([^\s;\\]+)", block)[1]
            assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is locked at {version}"


def test_every_package_of_the_lock_is_hashed(lock):
    """No package can be exchanged on the way: each has at least one SHA-256."""
    assert len(lock) > 100
    for name, blocks in lock.items():
        for block in blocks:
            assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), name


def test_the_lock_holds_no_address(root):
    """Where packages come from is the user's own setting."""
    text = (root / "requirements.lock").read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_the_installed_versions_are_the_locked_ones(lock):
    """What the tests run on is what the lock says."""
    from importlib.metadata import version

    for name in ("duckdb", "faiss-cpu", "numpy", "polars", "tantivy"):
        assert any(f"=={version(name)} " in block for block in lock[name]), f"{name} {version(name)}; run make env"


def test_the_makefile_lists_its_targets(root):
    """`make` alone lists every target that a person would call."""
    text = (root / "Makefile").read_text()
    listed = set(re.findall(r"^#   make (\w+)", text, re.MULTILINE))
    assert listed == set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()) - {"help"}


def test_ci_runs_the_checks_that_a_person_runs(root):
    """.ci/run is executable, is valid bash, and ends in `make test` with a bound on its time."""
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    bound = re.fullmatch(r"timeout --kill-after=\d+ (\d+) make test </dev/null", script.read_text().splitlines()[-1])
    assert int(bound[1]) < 25 * 60
