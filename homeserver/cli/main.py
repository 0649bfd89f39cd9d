"""The command line: `homeserver run | init | user | room | state | report | appservice | …`.

Each command is a function from the parsed options to an exit status: 0 for success, 1 for an error
with a printed message, 2 for an invalid command line. Errors that the operator can fix never show a
traceback: they are raised as `ConfigError` or `CommandError`, and the message is printed.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from homeserver.cli.accounts.command_lines import add_registration_token, add_user
from homeserver.cli.errors import CommandError
from homeserver.cli.options import add_config, duration
from homeserver.config.errors import ConfigError
from homeserver.version import VERSION

MAX_DRAWN_EVENTS = 2_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, that of the process unless one is given; returns the exit status."""
    options = build_parser().parse_args(arguments)
    if options.command is not _run and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        # The handlers may have to restore something, such as the echo of the terminal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status: int = options.command(options)
    except (CommandError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted", file=sys.stderr)
        return 1
    return status


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; each command's function is the option `command`."""
    parser = argparse.ArgumentParser(prog="homeserver", description="A Matrix homeserver.")
    parser.add_argument("--version", action="version", version=f"homeserver {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_init(commands)
    _add_doctor(commands)
    _add_rotate_key(commands)
    add_user(commands)
    add_registration_token(commands)
    _add_room(commands)
    _add_state(commands)
    _add_report(commands)
    _add_appservice(commands)
    _add_media(commands)
    _add_jobs(commands)
    _add_search(commands)
    return parser


def _add_run(commands: Any) -> None:
    parser = commands.add_parser("run", help="run the server in the foreground")
    add_config(parser)
    parser.set_defaults(command=_run)


def _add_init(commands: Any) -> None:
    parser = commands.add_parser("init", help="write a configuration and a signing key")
    parser.add_argument("server_name", metavar="SERVER_NAME", help="such as example.org")
    add_config(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing configuration")
    parser.add_argument(
        "--acme",
        metavar="EMAIL",
        help="serve https://SERVER_NAME with a certificate that the server obtains from Let's"
        " Encrypt, to whose terms of service you agree; EMAIL is where they reach you",
    )
    parser.set_defaults(command=_init)


def _add_doctor(commands: Any) -> None:
    parser = commands.add_parser("doctor", help="check the installation and suggest fixes")
    parser.add_argument(
        "server",
        nargs="?",
        metavar="SERVER",
        help="another server, to check whether it can be reached",
    )
    add_config(parser)
    parser.add_argument(
        "--repair", action="store_true", help="repair data that can be derived from other data"
    )
    parser.set_defaults(command=_doctor)


def _add_rotate_key(commands: Any) -> None:
    parser = commands.add_parser(
        "rotate-key", help="create a new signing key; stop the server first"
    )
    add_config(parser)
    parser.set_defaults(command=_rotate_key)


def _add_room(commands: Any) -> None:
    parser = commands.add_parser("room", help="inspect a room and its event graph")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("show", help="show state, members, extremities, and events by check result")
    graph = actions.add_parser("graph", help="draw the event graph, the newest event on top")
    graph.add_argument(
        "--last", type=_number_of_events, default=30, metavar="N", help="number of events (30)"
    )
    graph.add_argument(
        "--around", metavar="EVENT", help="draw the events near an event, not the newest"
    )
    graph.add_argument("--svg", type=Path, metavar="FILE", help="a picture, drawn by Graphviz")
    graph.add_argument("--dot", type=Path, metavar="FILE", help="in the language of Graphviz")
    for action in actions.choices.values():
        action.set_defaults(command=_room)
    _add_room_purges(actions)
    for name, action in actions.choices.items():
        action.add_argument("room", metavar="ROOM", help="room ID, or an alias of this server")
        add_config(action)
        action.set_defaults(action=name)


def _add_room_purges(actions: Any) -> None:
    purge = actions.add_parser("purge-history", help="delete old messages, but no state")
    upto = purge.add_mutually_exclusive_group(required=True)
    upto.add_argument("--before-event", metavar="EVENT", help="those before an event")
    upto.add_argument(
        "--older-than", type=duration, metavar="TIME", help="those of an age: 90s, 2h, 7d"
    )
    purge.add_argument(
        "--with-local", action="store_true", help="also those that users of this server have sent"
    )
    purge.set_defaults(command=_purge_history)
    delete = actions.add_parser("delete", help="delete a room from this server")
    delete.add_argument(
        "--block", action="store_true", help="and let no user of this server join it again"
    )
    delete.set_defaults(command=_delete_room)
    unblock = actions.add_parser("unblock", help="allow to join a room again that was deleted")
    unblock.set_defaults(command=_unblock_room)


def _add_state(commands: Any) -> None:
    parser = commands.add_parser("state", help="maintain the states of rooms")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    collect = actions.add_parser(
        "sweep", help="remove now the state nodes that no room's state uses"
    )
    add_config(collect)
    collect.set_defaults(command=_collect_state_nodes)


def _add_report(commands: Any) -> None:
    parser = commands.add_parser("report", help="show the reports of users")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list the reports, oldest first")
    add_config(listing)
    listing.set_defaults(command=_report)


def _add_appservice(commands: Any) -> None:
    parser = commands.add_parser("appservice", help="inspect bridges and reach them")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="list the registrations")
    actions.add_parser("show", help="show a registration and the users it has made")
    actions.add_parser("ping", help="ask an application service, and explain each failure")
    actions.add_parser("skip", help="leave out what waits for an application service")
    replay = actions.add_parser("replay", help="send an application service its events again")
    replay.add_argument(
        "--since", type=duration, required=True, metavar="TIME", help="how far back: 90s, 2h, 7d"
    )
    for name, action in actions.choices.items():
        if name != "list":
            action.add_argument("appservice", metavar="ID", help="the id in its registration")
        add_config(action)
        action.set_defaults(command=_appservice, action=name)


def _add_media(commands: Any) -> None:
    parser = commands.add_parser("media", help="show the use of storage, withdraw or copy files")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("usage", help="show what users have stored, and what is cached")
    actions.add_parser("quarantine", help="serve a file no more, nor others of the same content")
    actions.add_parser("release", help="end the quarantine of a file")
    actions.add_parser("delete", help="delete a file permanently")
    actions.add_parser("copy-to-s3", help="copy all files from the media folder to the bucket")
    for name, action in actions.choices.items():
        if name not in ("usage", "copy-to-s3"):
            action.add_argument("uri", nargs="?", metavar="URI", help="mxc://server/media_id")
            action.add_argument("--user", metavar="USER_ID", help="all files of a local user")
        add_config(action)
        action.set_defaults(command=_media, action=name)


def _add_jobs(commands: Any) -> None:
    parser = commands.add_parser("jobs", help="show and cancel work in the background")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("list", help="list the jobs, the unfinished ones first")
    actions.add_parser("show", help="show a job")
    actions.add_parser("cancel", help="end a job after its present step")
    actions.add_parser("retry", help="continue a job that failed or was cancelled")
    for name, action in actions.choices.items():
        if name != "list":
            action.add_argument("job", type=int, metavar="ID", help="the number of the job")
        add_config(action)
        action.set_defaults(command=_jobs, action=name)


def _add_search(commands: Any) -> None:
    parser = commands.add_parser("search", help="maintain the index of the search")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    rebuild = actions.add_parser("rebuild", help="index all messages again, in the background")
    add_config(rebuild)
    rebuild.set_defaults(command=_search)


def _number_of_events(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_DRAWN_EVENTS:
        raise argparse.ArgumentTypeError(f"from 1 to {MAX_DRAWN_EVENTS}")
    return number


# Commands import what they need: `homeserver --help` should not load the whole server.


def _run(options: argparse.Namespace) -> int:
    from homeserver.cli.run import run

    return run(options.config)


def _init(options: argparse.Namespace) -> int:
    from homeserver.cli.init import init

    return init(options.server_name, options.config, replace=options.force, acme_email=options.acme)


def _doctor(options: argparse.Namespace) -> int:
    from homeserver.cli.doctor.doctor import doctor

    return doctor(options.config, options.server, repair=options.repair)


def _rotate_key(options: argparse.Namespace) -> int:
    from homeserver.cli.rotate_key import rotate_key

    return rotate_key(options.config)


def _report(options: argparse.Namespace) -> int:
    from homeserver.cli.reports import report

    return report(options)


def _media(options: argparse.Namespace) -> int:
    if options.action == "copy-to-s3":
        from homeserver.cli.media.copy_to_s3 import copy_to_s3

        return copy_to_s3(options.config)
    from homeserver.cli.media.commands import media

    return media(options)


def _purge_history(options: argparse.Namespace) -> int:
    from homeserver.cli.maintenance.room_purge import purge_history

    return purge_history(options)


def _delete_room(options: argparse.Namespace) -> int:
    from homeserver.cli.maintenance.room_purge import delete_room

    return delete_room(options)


def _unblock_room(options: argparse.Namespace) -> int:
    from homeserver.cli.maintenance.room_purge import unblock

    return unblock(options)


def _jobs(options: argparse.Namespace) -> int:
    from homeserver.cli.maintenance.jobs import jobs

    return jobs(options)


def _search(options: argparse.Namespace) -> int:
    from homeserver.cli.maintenance.search import search

    return search(options)


def _room(options: argparse.Namespace) -> int:
    from homeserver.cli.rooms import room

    return room(options)


def _collect_state_nodes(options: argparse.Namespace) -> int:
    from homeserver.cli.states import collect_state_nodes

    return collect_state_nodes(options.config)


def _appservice(options: argparse.Namespace) -> int:
    from homeserver.cli.appservices.commands import appservice

    return appservice(options)
