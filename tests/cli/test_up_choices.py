"""What `punch up` decides: which namespace it is in, which engine it runs, what it may drop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

from punch import create_namespace
from punch.cli.up._engine_choice import (
    INSTALL,
    PULL,
    Found,
    NoEngine,
    OwnEngine,
    PulledModel,
    best_model,
    choose_engines,
)
from punch.cli.up._namespace_choice import (
    LAST,
    MADE,
    AsSaid,
    Enter,
    Make,
    choose_namespace,
    in_namespace,
    may_drop,
)
from punch.exceptions import ConfigurationError
from punch.membership import list_members
from punch.settings import BackendSettings, NetworkSettings, Origin

Layer = Literal["flag", "variable", "file", "default"]

GB = 10**9
SMALL = PulledModel(path=Path("/m/small.gguf"), file_bytes=GB, chats=True)
LARGE = PulledModel(path=Path("/m/large.gguf"), file_bytes=8 * GB, chats=True)
EMBEDS = PulledModel(path=Path("/m/embeds.gguf"), file_bytes=2 * GB, chats=False)
SERVER = Path("/usr/bin/llama-server")


def said(layer: Layer, **values: Any) -> BackendSettings:
    """Settings in which *layer* says these values."""
    origins = {name: Origin(layer=layer, name=name.upper()) for name in values}
    return attrs.evolve(BackendSettings(), origins=origins, **values)


def chosen(settings: BackendSettings, found: Found) -> list[tuple[str, str | None]]:
    """The backends that are tried, with the models."""
    engines = choose_engines(settings, found)
    assert not isinstance(engines, NoEngine), engines
    return [(each.settings.name, each.settings.model) for each in engines]


# ---- which namespace ----


def test_a_machine_that_is_nowhere_makes_a_closed_namespace() -> None:
    """Nobody has to know a command for it."""
    assert choose_namespace(NetworkSettings(), ()) == Make("home")


def test_the_only_namespace_of_a_machine_is_the_one(tmp_path: Path) -> None:
    """Whatever it is called."""
    office = create_namespace("office", called="desk", folder=tmp_path)
    assert choose_namespace(NetworkSettings(), [office]) == Enter(office)


def test_what_is_said_counts_more_than_what_was_joined(tmp_path: Path) -> None:
    """An open namespace that somebody names is meant."""
    office = create_namespace("office", called="desk", folder=tmp_path)
    network = NetworkSettings(
        namespace="lab@open", origins={"namespace": Origin(layer="flag", name="--namespace")}
    )
    assert choose_namespace(network, [office]) == AsSaid()
    assert choose_namespace(network, ()) == AsSaid()


def test_several_namespaces_are_an_error_that_names_them(tmp_path: Path) -> None:
    """And what to type."""
    homes = [create_namespace(name, called="desk", folder=tmp_path) for name in ("a", "b")]
    with pytest.raises(ConfigurationError, match="--namespace a@") as raised:
        choose_namespace(NetworkSettings(), homes)
    assert str(homes[1].namespace) in str(raised.value)


def test_of_several_the_one_that_it_was_moved_into_counts(tmp_path: Path) -> None:
    """A service that starts anew is where it was."""
    homes = [create_namespace(name, called="desk", folder=tmp_path) for name in ("a", "b")]
    homes[1].folder.write(LAST, b"")
    assert choose_namespace(NetworkSettings(), homes) == Enter(homes[1])


def test_what_was_joined_since_is_meant_where_nobody_else_is_in_the_old_one(tmp_path: Path) -> None:
    """`punch up`, `punch join` and `punch up` again are in what was joined."""
    homes = [create_namespace(name, called="desk", folder=tmp_path) for name in ("a", "b", "c")]
    assert choose_namespace(NetworkSettings(), homes[:2], unused=homes[:1]) == Enter(homes[1])
    assert choose_namespace(NetworkSettings(), homes[:1], unused=homes[:1]) == Enter(homes[0])
    with pytest.raises(ConfigurationError, match="several"):
        choose_namespace(NetworkSettings(), homes, unused=homes[:1])


def test_every_part_of_the_program_means_the_namespace_that_was_chosen(tmp_path: Path) -> None:
    """Though the machine is a member of several."""
    home = create_namespace("a", called="desk", folder=tmp_path)
    network = in_namespace(NetworkSettings(), home)
    assert network.namespace == str(home.namespace)
    assert network.origin("namespace").layer == "flag"


def test_only_what_up_has_made_is_dropped(tmp_path: Path) -> None:
    """A namespace that a person made stays, though nobody else is in it."""
    home = create_namespace("home", called="desk", folder=tmp_path)
    alone = list_members(home)
    assert not may_drop(home, alone)
    home.folder.write(MADE, b"")
    assert may_drop(home, alone)


def test_a_namespace_with_another_member_is_not_dropped(tmp_path: Path) -> None:
    """Nor is one with a program that runs."""
    home = create_namespace("home", called="desk", folder=tmp_path)
    home.folder.write(MADE, b"")
    (here,) = list_members(home)
    assert not may_drop(home, [here, attrs.evolve(here, is_this_machine=False)])
    assert not may_drop(home, [attrs.evolve(here, is_connected=True)])


# ---- which engine ----


def test_a_mock_is_never_started_unasked() -> None:
    """It is the listener's default, and not that of `up`."""
    assert isinstance(choose_engines(BackendSettings(), Found()), NoEngine)


def test_a_mock_that_is_named_is_run() -> None:
    """Whatever else there is."""
    found = Found(models=(SMALL,), is_embedded=True)
    assert chosen(said("variable", name="mock"), found) == [("mock", None)]


def test_without_a_model_the_command_that_brings_a_small_one_is_said() -> None:
    """If there is an engine to run it."""
    missing = choose_engines(BackendSettings(), Found(is_embedded=True))
    assert missing == NoEngine(what="a model", remedy=PULL)


def test_without_an_engine_the_command_that_brings_one_is_said() -> None:
    """With the one for a model, if that is missing, too."""
    alone = choose_engines(BackendSettings(), Found(models=(SMALL,)))
    assert isinstance(alone, NoEngine)
    assert alone.remedy == INSTALL
    both = choose_engines(BackendSettings(), Found())
    assert isinstance(both, NoEngine)
    assert INSTALL in both.remedy
    assert PULL in both.remedy


def test_engines_are_tried_from_the_fastest_to_the_binding() -> None:
    """One that does not start leaves it to the next."""
    found = Found(models=(SMALL,), servers=(SERVER,), is_embedded=True, has_binding=True)
    model = str(SMALL.path)
    assert chosen(BackendSettings(), found) == [
        ("llama_cpp", model),
        ("embedded", model),
        ("llama_cpp_python", model),
    ]


def test_the_model_that_is_said_is_run() -> None:
    """Though others were pulled."""
    found = Found(models=(LARGE,), is_embedded=True)
    assert chosen(said("flag", model="smollm2"), found) == [("embedded", "smollm2")]


def test_the_program_that_is_said_is_the_only_one() -> None:
    """Another engine would be a surprise."""
    found = Found(models=(SMALL,), is_embedded=True, servers=(SERVER,))
    settings = said("variable", program="/opt/llama-server")
    engines = choose_engines(settings, found)
    assert not isinstance(engines, NoEngine)
    (engine,) = engines
    assert isinstance(engine, OwnEngine)
    assert engine.settings.name == "llama_cpp"
    assert engine.settings.program == "/opt/llama-server"
    assert engine.settings.model == str(SMALL.path)


def test_a_program_that_is_said_needs_a_model_alone() -> None:
    """Nobody is told to get an engine who has named one."""
    missing = choose_engines(said("variable", program="/opt/llama-server"), Found())
    assert missing == NoEngine(what="a model", remedy=PULL)


def test_a_server_that_is_said_is_asked() -> None:
    """Unless a model file is said, too, which an engine here runs."""
    url = "http://127.0.0.1:9000"
    assert chosen(said("file", openai_url=url), Found()) == [("openai", None)]
    found = Found(is_embedded=True)
    both = said("file", openai_url=url, model="smollm2")
    assert chosen(both, found) == [("embedded", "smollm2")]


@pytest.mark.parametrize(
    ("models", "memory", "expected"),
    [
        ((SMALL, LARGE), 64 * GB, LARGE),
        ((SMALL, LARGE), 8 * GB, SMALL),
        ((SMALL, LARGE), None, LARGE),
        ((SMALL, EMBEDS), 64 * GB, SMALL),
        ((EMBEDS,), 64 * GB, EMBEDS),
        ((LARGE,), 4 * GB, LARGE),
        ((), 64 * GB, None),
    ],
)
def test_the_largest_model_that_chats_and_fits_is_the_best(
    models: tuple[PulledModel, ...], memory: int | None, expected: PulledModel | None
) -> None:
    """Where none fits, the smallest is tried."""
    assert best_model(models, memory) == expected
