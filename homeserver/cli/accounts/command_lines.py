"""The command lines of `homeserver user` and `homeserver registration-token`.

What they do is imported when it is done: `homeserver --help` should not load the whole server.
"""

import argparse
from typing import Any

from homeserver.cli.options import add_config, duration

MAX_USES = 1_000_000_000


def add_user(commands: Any) -> None:
    """Add `homeserver user`."""
    parser = commands.add_parser("user", help="add, list, change and deactivate accounts")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    add = actions.add_parser("add", help="create an account")
    add.add_argument("--admin", action="store_true", help="an administrator of the server")
    actions.add_parser("list", help="list the accounts")
    set_password = actions.add_parser("set-password", help="set a password, log out all devices")
    deactivate = actions.add_parser("deactivate", help="deactivate an account permanently")
    deactivate.add_argument(
        "--erase", action="store_true", help="hide the user's messages from members who join later"
    )
    _add_threepids(actions)
    _add_identities(actions)
    for name, action in actions.choices.items():
        if name != "list":
            action.add_argument("user", metavar="USER", help="localpart or whole user ID")
        add_config(action)
        action.set_defaults(command=_user, action=name)
    for action in (add, set_password):
        source = action.add_mutually_exclusive_group()
        source.add_argument(
            "--password", help="the password; other users of this machine can see it here"
        )
        source.add_argument(
            "--password-stdin", action="store_true", help="read it from the first line of the input"
        )


def _add_threepids(actions: Any) -> None:
    add = actions.add_parser("add-threepid", help="add an e-mail address or a telephone number")
    remove = actions.add_parser(
        "remove-threepid", help="remove an e-mail address or a telephone number"
    )
    actions.add_parser(
        "list-threepids", help="list the e-mail addresses and telephone numbers of an account"
    )
    for action in (add, remove):
        address = action.add_mutually_exclusive_group(required=True)
        address.add_argument("--email", metavar="ADDRESS")
        address.add_argument("--phone", metavar="NUMBER", help="with + and country code")
        action.add_argument(
            "--country", metavar="CC", help="the country of NUMBER in national form, such as GB"
        )


def _add_identities(actions: Any) -> None:
    link = actions.add_parser("link-identity", help="have a user sign in at an identity provider")
    unlink = actions.add_parser("unlink-identity", help="remove an identity from an account")
    actions.add_parser("list-identities", help="list the identities of an account")
    for action in (link, unlink):
        action.add_argument("--provider", required=True, metavar="ID", help="id of the provider")
        action.add_argument(
            "--subject", required=True, help="the permanent id that the provider has of the user"
        )


def add_registration_token(commands: Any) -> None:
    """Add `homeserver registration-token`."""
    parser = commands.add_parser(
        "registration-token", help="issue, list and withdraw tokens for registration"
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add = actions.add_parser("add", help="issue a token, and print it")
    add.add_argument("token", nargs="?", metavar="TOKEN", help="the token (a random one)")
    add.add_argument(
        "--uses", type=_number_of_uses, metavar="N", help="number of accounts (any number)"
    )
    add.add_argument(
        "--expires-after", type=duration, metavar="TIME", help="90s, 2h, 7d (it does not expire)"
    )
    actions.add_parser("list", help="list the tokens, with their uses")
    remove = actions.add_parser("remove", help="withdraw a token")
    remove.add_argument("token", metavar="TOKEN")
    for name, action in actions.choices.items():
        add_config(action)
        action.set_defaults(command=_registration_token, action=name)


def _number_of_uses(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_USES:
        raise argparse.ArgumentTypeError(f"from 1 to {MAX_USES}")
    return number


def _user(options: argparse.Namespace) -> int:
    from homeserver.cli.accounts.users import user

    return user(options)


def _registration_token(options: argparse.Namespace) -> int:
    from homeserver.cli.accounts.registration_tokens import registration_token

    return registration_token(options)
