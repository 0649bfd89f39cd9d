"""Appservice files of application services: YAML, one file for each of them.

The files are written by bridges, which add keys for other servers; so unknown keys are no errors.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from homeserver.config.errors import ConfigError
from homeserver.config.yaml_file import Steps, YamlFile, read_yaml
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.appservices.namespaces import Namespace, NamespaceList
from homeserver.protocol.identifiers import InvalidIdentifier, check_localpart

SUFFIXES = (".yaml", ".yml")
MIN_TOKEN = 8  # characters
KINDS = ("users", "aliases", "rooms")
# The first name that is present counts; the others are those of drafts, which bridges still write.
EPHEMERAL = ("receive_ephemeral", "de.sorunome.msc2409.push_ephemeral", "push_ephemeral")
ENCRYPTION = ("org.matrix.msc3202",)
HISTORY_IMPORT = ("io.homeserver.history_import",)


def load_registrations(files: Sequence[Path], folder: Path, server_name: str) -> list[Appservice]:
    """The registrations in these files, and in all YAML files of a folder, if it exists.

    Raises `ConfigError` with all errors, each with its file, its line and what to do.
    """
    return [each for _, each in load_registration_files(files, folder, server_name)]


def load_registration_files(
    files: Sequence[Path], folder: Path, server_name: str
) -> list[tuple[Path, Appservice]]:
    """The same, each with its file."""
    problems: list[str] = []
    found: list[tuple[Path, Appservice]] = []
    for path in [*files, *_files_in(folder)]:
        registration = _load(path, server_name, problems)
        if registration is not None:
            problems += _clashes(path, registration, found)
            found.append((path, registration))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"cannot read {folder}: {error.strerror}") from None


def _load(path: Path, server_name: str, problems: list[str]) -> Appservice | None:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(f"cannot read {path}: {error.strerror}")
        return None
    except UnicodeDecodeError:
        problems.append(f"{path} is not UTF-8 text")
        return None
    reading = _RegistrationFile(read_yaml(text), server_name)
    registration = reading.registration()
    problems += [f"{path}, line {line}: {text}" for line, text in sorted(reading.problems)]
    return None if reading.problems else registration


def _clashes(
    path: Path, new: Appservice, others: Sequence[tuple[Path, Appservice]]
) -> Iterator[str]:
    """The ids and tokens that two application services have in common."""
    for other_path, other in others:
        if new.id == other.id:
            yield (
                f"{path}: the id {new.id!r} is that of {other_path}, too;"
                " remove one of the files, or give its application service another id"
            )
        elif new.as_token == other.as_token:
            yield (
                f"{path}: the as_token is that of {other_path}, too;"
                " have one of the application services generate its registration again"
            )


class _RegistrationFile:
    """A parsed file; `problems` collects its errors, as (line, text)."""

    def __init__(self, file: YamlFile, server_name: str) -> None:
        self._file = file
        self._server_name = server_name
        self.problems = list(file.mistakes)
        self._content: dict[Any, Any] = {}
        if isinstance(file.content, dict):
            self._content = file.content
        elif not self.problems:
            self.problems.append((1, "expected a registration (key: value)"))

    def registration(self) -> Appservice:
        """The registration, which is complete if there are no problems."""
        namespaces = self._namespaces()
        return Appservice(
            id=self._text("id"),
            url=self._url(),
            as_token=self._token("as_token"),
            hs_token=self._token("hs_token"),
            sender=self._sender(),
            server_name=self._server_name,
            protocols=self._protocols(),
            rate_limited=self._switch(("rate_limited",), default=True),
            receives_ephemeral=self._switch(EPHEMERAL),
            receives_encryption=self._switch(ENCRYPTION),
            may_import_history=self._switch(HISTORY_IMPORT),
            **namespaces,
        )

    def _problem(self, place: Steps, text: str) -> None:
        name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
        self.problems.append((self._file.line_of(place), f"{name[1:]}: {text}"))

    def _text(self, key: str, *, is_secret: bool = False) -> str:
        value = self._content.get(key)
        if value is None:
            self._problem((key,), "missing, but required")
        elif not isinstance(value, str):
            got = "something else" if is_secret else value
            self._problem((key,), f"expected text, got {got} (put it in quotes)")
        elif not value:
            self._problem((key,), "expected text that is not empty")
        else:
            return value
        return ""

    def _token(self, key: str) -> str:
        token = self._text(key, is_secret=True)
        if token and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
            self._problem(
                (key,),
                f"expected a secret of at least {MIN_TOKEN} ASCII characters, like those"
                " of `openssl rand -hex 32`",
            )
        return token

    def _url(self) -> str | None:
        url = self._content.get("url")
        if url is None or url == "":
            return None
        try:
            parts = urlsplit(url)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        except (ValueError, AttributeError, TypeError):
            is_url = False
        if not is_url:
            self._problem(
                ("url",),
                "expected a web address such as http://127.0.0.1:29300, or null for an"
                " application service that opens a WebSocket or needs no events",
            )
            return None
        return str(url).rstrip("/")

    def _sender(self) -> str:
        localpart = self._text("sender_localpart")
        if localpart.startswith("@"):
            self._problem(("sender_localpart",), "expected the part between @ and : alone")
        elif localpart:
            try:
                check_localpart(localpart, self._server_name)
            except InvalidIdentifier as error:
                self._problem(("sender_localpart",), str(error))
        return f"@{localpart}:{self._server_name}"

    def _protocols(self) -> tuple[str, ...]:
        protocols = self._content.get("protocols")
        if protocols is None:
            return ()
        if not isinstance(protocols, list) or not all(
            isinstance(each, str) and each for each in protocols
        ):
            self._problem(("protocols",), "expected a list of names, such as [irc]")
            return ()
        return tuple(protocols)

    def _switch(self, names: Sequence[str], *, default: bool = False) -> bool:
        for name in names:
            value = self._content.get(name)
            if isinstance(value, bool):
                return value
            if value is not None:
                self._problem((name,), "expected true or false")
        return default

    def _namespaces(self) -> dict[str, NamespaceList]:
        value = self._content.get("namespaces")
        if value is None:
            if "namespaces" not in self._content:
                self._problem(("namespaces",), "missing, but required; {} is none")
            return {}
        if not isinstance(value, dict):
            self._problem(("namespaces",), "expected a section with users, aliases and rooms")
            return {}
        return {kind: self._namespace_list(kind, value.get(kind)) for kind in KINDS}

    def _namespace_list(self, kind: str, value: Any) -> NamespaceList:
        place: Steps = ("namespaces", kind)
        if value is None:
            return NamespaceList()
        if not isinstance(value, list):
            self._problem(place, "expected a list of namespaces, each with exclusive and regex")
            return NamespaceList()
        found = [self._namespace((*place, number), each) for number, each in enumerate(value)]
        return NamespaceList(tuple(each for each in found if each is not None))

    def _namespace(self, place: Steps, value: Any) -> Namespace | None:
        if not isinstance(value, dict):
            self._problem(place, "expected a namespace with exclusive and regex")
            return None
        exclusive, regex = value.get("exclusive"), value.get("regex")
        if not isinstance(exclusive, bool):
            self._problem((*place, "exclusive"), "expected true or false")
        if not isinstance(regex, str) or not regex:
            self._problem((*place, "regex"), "expected a regular expression, such as '@_irc_.*'")
            return None
        try:
            return Namespace(re.compile(regex), exclusive is True)
        except (re.error, RecursionError, OverflowError) as error:
            self._problem((*place, "regex"), f"not a regular expression: {error}")
            return None
