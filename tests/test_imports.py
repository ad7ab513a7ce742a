"""The shape of the package, read from its source: who imports whom, and what is said where."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "memlab"
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in SOURCES]

# A part imports from parts above it in this list, and from itself.
LEVELS = [
    {"errors"},
    {"settings", "values", "hooks"},
    {"measure", "storage", "embedders"},
    {"middleware", "operations"},
    {"workload", "engine", "predict"},
    {"memory"},
    {"experiment", "charts"},
    {"guide", "widgets", "server"},
    {"cli", "__main__"},
    {"__init__"},
]
# Beside each other, and yet one way.
SIDEWAYS = {("storage", "measure"), ("storage", "embedders"), ("middleware", "operations"), ("settings", "values")}
ONLY_IN = {
    "duckdb": ("storage/", "measure/floors.py"),
    "faiss": ("storage/", "measure/floors.py", "measure/bare_index.py"),
    "tantivy": ("storage/", "measure/floors.py"),
    "igraph": ("storage/",),
    "altair": ("charts/", "widgets/"),
    "vl_convert": ("charts/", "widgets/"),
}
# Methods whose first argument is SQL, and the places that put SQL together, each with why no caller's text reaches it.
SQL_CALLS = {"execute", "executemany", "sql", "read", "read_arrow", "query"}
ASSEMBLED = {
    ("storage/instance.py", "arrow_schema"): "the name of a table, from the code",
    ("storage/rows.py", "_listed"): "as many question marks as there are seqs",
    ("storage/transaction.py", "_insert_sql"): "names of tables and columns from the code; values are parameters",
}


def _part(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _level(part: str) -> int:
    found = [place for place, parts in enumerate(LEVELS) if part in parts]
    assert found, f"memlab/{part} has no place in LEVELS yet; give it one"
    return found[0]


def wrong_imports(part: str, tree: ast.AST) -> list[str]:
    """Return the imports from inside memlab that point the wrong way."""
    wrong = []
    for name in _imports(tree):
        if not name.startswith("memlab."):
            continue
        other = name.split(".")[1]
        if other != part and _level(other) >= _level(part) and (part, other) not in SIDEWAYS:
            wrong.append(name)
    return wrong


def assembled_sql(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (function, line) of every call that gives SQL other than one literal or a name."""
    for function in [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module))]:
        for node in _own(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SQL_CALLS and node.args:
                if _assembled(node.args[0]):
                    yield getattr(function, "name", "module"), node.lineno
            elif isinstance(node, (ast.JoinedStr, ast.BinOp)) and _assembled(node) and _begins_as_sql(node):
                yield getattr(function, "name", "module"), node.lineno


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """Walk a function without the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
            yield from _own(child)


def _assembled(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, (ast.Add, ast.Mod))
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"format", "join", "replace"}


def _begins_as_sql(node: ast.AST) -> bool:
    literal = next((one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)), "")
    return re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|ATTACH|COPY|PRAGMA|SET|WITH|FROM)\s", literal) is not None


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text(), filename=name) for name, path in zip(NAMES, SOURCES, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_one_way(name, trees):
    """guide → experiment, charts → engine, workload → middleware, operations → measure, storage → settings, values, errors."""
    assert wrong_imports(_part(PACKAGE / name), trees[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_libraries_stay_in_their_part(name, trees):
    """Only storage/ and the bare floors say duckdb, faiss or tantivy, only storage/ igraph, only charts/ and widgets/ altair."""
    for module in _imports(trees[name]):
        places = ONLY_IN.get(module.split(".")[0])
        assert places is None or name.startswith(places), f"{name} imports {module}"


@pytest.mark.parametrize("name", NAMES)
def test_one_module_reads_the_clock(name, trees):
    """Time comes from measure/clock.py alone, so that a test can replace it."""
    if name == "measure/clock.py":
        return
    for node in ast.walk(trees[name]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            said = f"{node.value.id}.{node.attr}"
            assert node.value.id != "time" or node.attr in {"sleep", "struct_time"}, f"{name}:{node.lineno} {said}"
            assert said not in {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}, f"{name}:{node.lineno} {said}"
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            assert {alias.name for alias in node.names} <= {"sleep"}, f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_no_print_exit_or_assert(name, trees):
    """The package raises and returns; it does not print, leave the process or assert."""
    for node in ast.walk(trees[name]):
        assert not isinstance(node, ast.Assert), f"{name}:{node.lineno} assert"
        if isinstance(node, ast.Call):
            assert not (isinstance(node.func, ast.Name) and node.func.id in {"print", "exit", "quit"}), f"{name}:{node.lineno}"
            assert ast.unparse(node.func) != "sys.exit", f"{name}:{node.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_sql_is_never_assembled_from_values(name, trees):
    """SQL is a literal with parameters; each exception is listed by file and function."""
    found = {(function, line) for function, line in assembled_sql(trees[name]) if (name, function) not in ASSEMBLED}
    assert not found, f"{name}: SQL put together in {sorted(found)}; use parameters, or list it in ASSEMBLED with its reason"


def test_the_list_of_assembled_sql_holds_nothing_else(trees):
    """An exception that is no longer needed leaves the list."""
    used = {(name, function) for name, tree in trees.items() for function, _ in assembled_sql(tree)}
    assert used >= set(ASSEMBLED)


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ('connection.execute(f"SELECT * FROM t WHERE id = {id}")', True),
        ('connection.execute("SELECT * FROM t WHERE id = " + id)', True),
        ('connection.execute("SELECT %s" % id)', True),
        ('connection.execute("SELECT {}".format(id))', True),
        ('text = f"DELETE FROM {table}"', True),
        ('connection.execute("SELECT * FROM t WHERE id = ?", [id])', False),
        ("engine.execute(operation, parameters)", False),
        ('message = f"set {name} to {value}"', False),
    ],
)
def test_the_check_of_sql_sees_what_it_should(source, caught):
    """Planted mistakes are caught, and ordinary code is not."""
    assert bool(list(assembled_sql(ast.parse(source)))) is caught


@pytest.mark.parametrize(
    ("part", "source", "caught"),
    [
        ("storage", "from memlab.engine import Engine", True),
        ("storage", "from memlab.measure import clock", False),
        ("measure", "import memlab.storage.store", True),
        ("guide", "def late():\n    from memlab.cli import main", True),
        ("cli", "from memlab.guide import export", False),
    ],
)
def test_the_check_of_imports_sees_what_it_should(part, source, caught):
    """Planted imports are caught, late ones too."""
    assert bool(wrong_imports(part, ast.parse(source))) is caught


def test_nothing_of_a_machine_is_tracked():
    """No tracked text names a folder of the machine it was written on, or the host of a package registry."""
    machine = r"/(?:w[o]rk|r[o]ot|f[a]rm)/|/t[m]p/[a-z]+/|/h[o]me/\w+/|/U[s]ers/\w+/"
    registries = r"py[p]i\.org|pythonh[o]sted|registry\.np[m]js|deb\.d[e]bian\.org"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("NOT CHECKED: no git checkout, so nothing is tracked")
    found = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (data := path.read_bytes())[:8000]:
            text = data.decode(errors="replace")
            found += [f"{name}: {match[0]}" for match in re.finditer(f"{machine}|{registries}", text)]
    assert not found


def test_the_public_names_are_there():
    """`import memlab` offers exactly what it lists, and a misspelt name is an AttributeError."""
    import memlab

    for name in memlab.__all__:
        assert getattr(memlab, name) is not None
    assert set(memlab.__all__) <= set(dir(memlab))
    with pytest.raises(AttributeError, match="Memori"):
        memlab.Memori  # noqa: B018


def test_importing_memlab_is_light():
    """The bare import loads no engine, so that `memlab --help` answers at once."""
    import sys

    heavy = {"duckdb", "faiss", "tantivy", "igraph", "optuna", "altair", "polars"}
    program = f"import memlab, sys; sys.stdout.write(' '.join({heavy!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout == ""
