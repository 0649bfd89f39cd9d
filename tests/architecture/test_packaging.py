"""Files in packaging/: all that they name exists, and they agree with the server and each other."""

import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from psycopg.conninfo import conninfo_to_dict

from homeserver.app import KILL_AFTER_SECONDS
from homeserver.config.loading import parse_settings
from homeserver.config.settings import Settings
from tests.architecture.commands import unknown_word
from tests.architecture.source import PACKAGES, TOP

FOLDER = TOP / "packaging"
CONFIG = "/etc/homeserver/homeserver.yaml"


@cache
def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, with their arguments on one line."""
    text = (FOLDER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def arguments(instruction: str) -> list[str]:
    """The arguments of all instructions of a kind."""
    return [argument for name, argument in dockerfile() if name == instruction]


def copied() -> list[tuple[str, str]]:
    """The files that are copied from the checkout into the image, and their targets."""
    from_checkout = [each.split() for each in arguments("COPY") if not each.startswith("--from")]
    return [(source, words[-1]) for words in from_checkout for source in words[:-1]]


@cache
def compose() -> Any:
    """The content of the compose file."""
    return yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))


@cache
def unit() -> dict[str, str]:
    """The settings of the systemd unit; of those that are there twice, the last."""
    text = (FOLDER / "homeserver.service").read_text("utf-8")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def settings_of(text: str) -> Settings:
    """A configuration, of which every key has to be known."""
    text = re.sub(r"\$\{\w+[^}]*\}", "example.org", text)
    settings, unknown = parse_settings(text)
    assert unknown == []
    return settings


def configurations() -> list[Settings]:
    """The configurations that a container starts with."""
    return [
        settings_of((FOLDER / "container.yaml").read_text("utf-8")),
        settings_of(compose()["configs"]["homeserver.yaml"]["content"]),
    ]


def test_image_is_made_of_files_that_exist() -> None:
    """`docker build` finds what it copies, and the image has all packages of the server."""
    sources = [source for source, _ in copied()]
    ignore = (FOLDER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    let_in = {line[1:] for line in rules if line.startswith("!")}

    # Nothing but that: no data, no signing key, no environment of the checkout.
    assert rules[0] == "*"
    assert [source for source in sources if not (TOP / source).exists()] == []
    assert set(PACKAGES) <= set(sources)
    assert set(sources) == let_in
    # The build reads these too: setuptools refuses a project without them.
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    assert {project["readme"], *project["license-files"], "pyproject.toml"} <= set(sources)


def test_image_has_a_python_that_the_server_runs_on() -> None:
    """An interpreter that is too old would be refused by pip, late in the build."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["project"]
    oldest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    images = [each.split()[0] for each in arguments("FROM")]

    # The environment is moved from one to the other, so they have to be the same.
    assert len(set(images)) == 1
    found = re.fullmatch(r"python:(\d+)\.(\d+)-slim", images[0])
    assert found is not None
    assert (int(found[1]), int(found[2])) >= oldest


def test_image_starts_the_server_as_a_user_without_privileges() -> None:
    """PostgreSQL refuses to run as root, and a container should not."""
    command = [*json.loads(arguments("ENTRYPOINT")[-1]), *json.loads(arguments("CMD")[-1])]
    users = [
        re.search(r"useradd .*--uid (\d+)", argument)
        for argument in arguments("RUN")
        if "useradd" in argument
    ]

    assert command[0] == "homeserver"
    assert command[1:] == ["run"]
    assert unknown_word(command[1:]) is None
    assert [user[1] for user in users if user] == [arguments("USER")[-1].split(":")[0]]
    assert arguments("USER")[-1].split(":")[0] != "0"
    # Commands without --config find the configuration in the working directory.
    assert f"{arguments('WORKDIR')[-1]}/homeserver.yaml" == CONFIG
    assert ("packaging/container.yaml", CONFIG) in copied()


def test_containers_listen_where_they_are_asked() -> None:
    """The port that is published, the one that is checked and the one of the server are one."""
    exposed = int(arguments("EXPOSE")[-1])
    checked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)'", arguments("HEALTHCHECK")[-1])
    published = compose()["services"]["homeserver"]["ports"][0]

    assert checked is not None
    assert int(checked[1]) == exposed
    assert int(published.split(":")[-1]) == exposed
    page = (TOP / "docs" / "conformance.md").read_text("utf-8")
    assert f"`GET {checked[2]}`" in page
    for settings in configurations():
        listener = settings.listeners[0]
        assert listener.port == exposed
        assert listener.addresses == ("0.0.0.0",)
        assert {"client", "federation", "health"} <= set(listener.resources)


def test_data_of_containers_is_in_the_volume() -> None:
    """The data of the server outlive the container."""
    volume = arguments("VOLUME")[-1]
    mounts = [each.split(":")[1] for each in compose()["services"]["homeserver"]["volumes"]]

    assert [str(settings.data_dir) for settings in configurations()] == [volume, volume]
    assert mounts == [volume]
    assert f"--mode 0750 {volume}" in " ".join(arguments("RUN"))


def test_compose_file_fits_together() -> None:
    """The server finds its database, its password and its configuration."""
    services = compose()["services"]
    server, database = services["homeserver"], services["postgres"]
    dsn = conninfo_to_dict(configurations()[1].database.dsn or "")
    context = (FOLDER / server["build"]["context"]).resolve()

    assert context == TOP
    assert (context / server["build"]["dockerfile"]).is_file()
    assert dsn["host"] == "postgres"
    assert (dsn["user"], dsn["dbname"]) == (
        database["environment"]["POSTGRES_USER"],
        database["environment"]["POSTGRES_DB"],
    )
    assert server["environment"]["PGPASSWORD"] == database["environment"]["POSTGRES_PASSWORD"]
    assert [each["target"] for each in server["configs"]] == [CONFIG]
    assert list(server["depends_on"]) == ["postgres"]


def test_unit_starts_and_stops_the_server() -> None:
    """The command of the unit exists, and systemd gives the server enough time to stop."""
    program, *words = unit()["ExecStart"].split()
    state = f"/var/lib/{unit()['StateDirectory']}"
    longest = KILL_AFTER_SECONDS + Settings().limits.shutdown_timeout

    assert Path(program).name == "homeserver"
    assert unknown_word(words) is None
    assert words[0] == "run"
    assert words[words.index("--config") + 1].startswith(f"{state}/")
    assert unit()["ExecReload"].split()[1] == "-HUP"
    assert unit()["KillMode"] == "mixed"
    assert float(unit()["TimeoutStopSec"]) >= longest


def test_documents_and_unit_agree() -> None:
    """The unit starts the program that an operator installs by docs/systemd.md."""
    page = (TOP / "docs" / "systemd.md").read_text("utf-8")
    program, *words = unit()["ExecStart"].split()

    assert f"{program} init --config {words[-1]} " in page
    assert f"useradd --system --home-dir {unit()['WorkingDirectory']} " in page
