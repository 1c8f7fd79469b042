"""The architecture, as a table: who may import whom, and who may touch the outside world."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import punch

ROOT = Path(punch.__file__).parent

# A room may import rooms in rows above its own and nothing else of ours. Rooms that share a row
# do not know each other. `punch/__init__.py` is the facade and stands outside.
ROWS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "exceptions _version",
        "capability",
        "gguf peers",
        "wire",
        "access",
        "routing placement doctor",
        "events",
        # ---- everything above is sans-I/O ----
        "_alarms _background _logs _locks",
        "admission network processes machine _subscribers _log_events",
        "relay",
        "libp2p session llama_cpp model_store",
        "backends discovery tunnels",
        "bootstrap decision_log membership",
        "dialer listener",
        "cluster blocking adoption",
        "gateway testing",
        "dashboard simulator",
        "settings",
        "admin",
        "cli",
        "console",
        "__main__",
    )
)
ROW_OF = {room: number for number, row in enumerate(ROWS) for room in row}
PURE = frozenset().union(*ROWS[:7])

# What a room that does no I/O has no business with. `time` is the clock; `random` is allowed for
# its class only (an `rng` argument), see below.
IMPURE = """
    asyncio concurrent ctypes glob httpx io libp2p logging multiprocessing os pathlib psutil
    secrets select shutil signal socket ssl structlog subprocess tempfile threading time trio urllib
"""

# One door per outside world: who may import it at all, as files or whole folders.
DOORS: dict[str, frozenset[str]] = {
    "libp2p": frozenset({"libp2p/*.py", "libp2p/defects/*.py"}),
    "zeroconf": frozenset({"discovery/lan/_zeroconf.py"}),
    "msgpack": frozenset({"wire/_codec.py"}),
    "cryptography": frozenset({"tunnels/_certificates.py"}),
    "spake2": frozenset({"membership/codes/_pake.py"}),
    "segno": frozenset({"membership/codes/_qr.py"}),
    "jsonschema_rs": frozenset({"wire/checks/_fit.py"}),
    "httpx": frozenset(
        {"backends/openai/_client.py", "backends/openai/_backend.py", "testing/_upstream.py"}
    ),
    "httpcore": frozenset({"testing/_upstream.py"}),
    # Its private names: two switches of the scheduler that have no public way.
    "trio._core": frozenset({"simulator/_scheduler.py"}),
    "xllamacpp": frozenset({"backends/llama/_embedded_worker.py"}),
    "llama_cpp": frozenset({"backends/llama/_binding_worker.py"}),
    "httptools": frozenset({"gateway/server/_http1.py"}),
    "wsproto": frozenset({"gateway/server/_websocket.py"}),
    "starlette": frozenset({"gateway/*.py", "gateway/*/*.py", "dashboard/*.py"}),
    "pydantic": frozenset({"gateway/*.py", "gateway/*/*.py"}),
    "pynvml": frozenset({"machine.py"}),
    "tomlkit": frozenset({"settings/file/_edit.py"}),
    "sqlite3": frozenset({"gateway/keys/_database.py"}),
    "prometheus_client": frozenset({"gateway/telemetry/_metrics.py"}),
    "opentelemetry": frozenset({"gateway/telemetry/_spans.py"}),
    # The fakes are for our users' tests and for our own, never for the product.
    "punch.testing": frozenset({"testing/*.py", "simulator/*.py"}),
}

FORBIDDEN_NAMES = {"utils", "util", "helpers", "common", "constants", "models", "types", "misc"}

# Sizes that a reader can hold. Modules are usually far below; classes that pass 250 lines know too
# many things; of more than fifteen files nobody knows where a line belongs.
MAX_MODULE_LINES = 500
MAX_CLASS_LINES = 250
MAX_ROOM_FILES = 15
MAX_LEVELS = 3  # punch/room/part/_file.py


def files() -> list[Path]:
    """Every module of punch but the facade."""
    return sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A module's tree; read once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def names_in(path: Path) -> tuple[str, ...]:
    """What a module imports; see `imported`."""
    return tuple(imported(nodes_of(path), path))


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All of a module's tree."""
    return tuple(ast.walk(parsed(path)))


def relative(path: Path) -> str:
    """The path of a module inside punch, for messages and test ids."""
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    """The room a module belongs to."""
    if path.name == "__main__.py":
        return "__main__"  # `python -m punch.listener`: a program, whatever folder it stands in.
    return relative(path).split("/")[0].removesuffix(".py")


def imported(nodes: Iterable[ast.AST], path: Path) -> Iterator[str]:
    """The absolute name of everything the module imports, wherever in it."""
    package = ["punch", *path.relative_to(ROOT).parts[:-1]]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            # `from . import x` names a module, or a value in an __init__: both count as x.
            if module == ["punch"] or not node.module:
                yield from (".".join([*module, alias.name]) for alias in node.names)
            else:
                yield ".".join(module)


def is_through(name: str, door: str) -> bool:
    """Whether importing *name* goes through *door*."""
    return name == door or name.startswith(f"{door}.")


def each_file(rule: Callable[[Path], None]) -> Callable[[], None]:
    """Make of a rule about one file the test of all, which names every file that breaks it."""

    def test() -> None:
        broken = []
        for path in files():
            try:
                rule(path)
            except AssertionError as error:
                broken.append(f"{relative(path)}: {error}")
        assert not broken, "\n".join(broken)

    test.__name__, test.__doc__ = rule.__name__, rule.__doc__
    return test


@each_file
def test_every_module_lives_in_a_room_of_the_table(path: Path) -> None:
    """A new room needs a row, and that is a decision."""
    assert room_of(path) in ROW_OF, f"give the room {room_of(path)!r} a row in ROWS"


@each_file
def test_imports_point_inwards(path: Path) -> None:
    """A room imports only rooms of the rows above its own."""
    room = room_of(path)
    for name in names_in(path):
        top, _, rest = name.partition(".")
        if top == "punch":
            other = rest.split(".")[0]
            # The facade gives away its version and nothing else.
            if other == "__version__":
                continue
            assert other in ROW_OF, f"{relative(path)} imports punch itself: name the room"
            allowed = other == room or ROW_OF[other] < ROW_OF[room]
            assert allowed, f"{relative(path)}: {room!r} may not import {other!r}"


@each_file
def test_rooms_above_the_line_import_nothing_that_does_io(path: Path) -> None:
    """The thinking half knows no sockets, files, clocks or loggers."""
    if room_of(path) in PURE:
        # What takes addresses apart asks nobody for them.
        names = [name for name in names_in(path) if not is_through(name, "urllib.parse")]
        found = sorted({name.split(".")[0] for name in names} & set(IMPURE.split()))
        assert found == []


@each_file
def test_rooms_above_the_line_call_nothing_that_does_io(path: Path) -> None:
    """No `open`, no `print`, no chance but through an `rng` argument."""
    if room_of(path) not in PURE:
        return
    for node in nodes_of(path):
        where = f"{relative(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "input", "print", "exec", "eval"}, where
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            shared = node.value.id == "random" and node.attr != "Random"
            assert not shared, f"{where}: take an rng argument instead of random.{node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"], where


@each_file
def test_every_outside_world_has_one_door(path: Path) -> None:
    """Exceptions and types of a library are translated in one place."""
    here = Path(relative(path))
    for name in names_in(path):
        for door, keepers in DOORS.items():
            inside = any(here.match(keeper) for keeper in keepers)
            assert inside or not is_through(name, door), f"{here} may not import {door}"


@each_file
def test_no_module_is_too_long_to_read(path: Path) -> None:
    """What does not fit has two subjects."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


@each_file
def test_no_class_knows_too_many_things(path: Path) -> None:
    """What it does beyond one subject belongs to a class beside it, not to one below it."""
    for node in nodes_of(path):
        if isinstance(node, ast.ClassDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_CLASS_LINES, f"{node.name} has {lines} lines"


def test_no_room_is_too_big_to_see() -> None:
    """Programs and faces left out: each folder has one of them at most."""
    count = Counter(
        path.parent for path in files() if path.name not in {"__init__.py", "__main__.py"}
    )
    crowded = {relative(room): files_ for room, files_ in count.items() if files_ > MAX_ROOM_FILES}
    assert crowded == {}
    assert {len(path.relative_to(ROOT).parts) for path in files()} <= set(range(1, MAX_LEVELS + 1))


@each_file
def test_what_stands_inside_a_room_is_private_to_it(path: Path) -> None:
    """A room's face is its `__init__`; only values that everybody names stand beside the rooms."""
    if path.parent != ROOT:
        assert path.name.startswith("_"), "its name should begin with an underscore"


@each_file
def test_no_module_is_a_drawer_for_odds_and_ends(path: Path) -> None:
    """A module is named for its subject; so is every folder."""
    parts = {part.removesuffix(".py").strip("_") for part in path.relative_to(ROOT).parts}
    if room_of(path) == "cli":
        parts.discard("models")  # There it is a subject: the command `punch models`.
    assert parts & FORBIDDEN_NAMES == set()


def test_the_table_itself_catches_a_wrong_import() -> None:
    """The reader of imports sees every spelling, so that a green run means something."""
    source = "import trio\nfrom ..exceptions import PunchError\nfrom . import _codec\nimport a.b\n"
    names = sorted(imported(ast.walk(ast.parse(source)), ROOT / "wire" / "_example.py"))
    assert names == ["a.b", "punch.exceptions", "punch.wire._codec", "trio"]
