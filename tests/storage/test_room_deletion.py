"""The deletion of a room leaves nothing of it: every table is deleted from, or has a reason."""

import re

import psycopg

from homeserver.storage.retention.room_deletion import (
    BY_EVENT,
    BY_ROOM,
    BY_ROOM_ID,
    BY_SCOPE,
    KNOWN,
)
from tests.support.postgres import drop_database, fresh_database

# Tables of other things than rooms, which need no reason.
NOT_OF_ROOMS = {
    "accepted_policies",
    "access_tokens",
    "appservice_moves",
    "appservice_transactions",
    "authentication_sessions",
    "background_jobs",
    "browser_sessions",
    "cross_signing_keys",
    "cross_signing_resets",
    "dehydrated_devices",
    "deleted_key_sets",
    "destinations",
    "device_keys",
    "device_list_outbox",
    "device_lists",
    "devices",
    "external_ids",
    "fallback_keys",
    "filters",
    "identity_bindings",
    "key_backup_users",
    "key_backups",
    "key_signatures",
    "leases",
    "login_tokens",
    "media",
    "media_usage",
    "oauth_authorization_codes",
    "oauth_clients",
    "oauth_device_codes",
    "oauth_sessions",
    "one_time_keys",
    "openid_tokens",
    "outgoing_to_device",
    "presence",
    "profiles",
    "pushers",
    "quarantined_content",
    "reader_positions",
    "refresh_tokens",
    "registration_tokens",
    "remote_device_lists",
    "remote_devices",
    "schema_migrations",
    "server_keys",
    "server_state",
    "shards",
    "third_party_ids",
    "thumbnails",
    "to_device_messages",
    "to_device_received",
    "to_device_transactions",
    "url_previews",
    "user_directory_accounts",
    "users",
    "validation_sessions",
    "workers",
}
KEPT = {
    "names": "a room's id may be the state key of another room's state",
    "state_nodes": "states are shared by rooms; the garbage collection deletes those of none",
    "state_marks": "belongs to the garbage collection",
    "state_sweep": "belongs to the garbage collection",
    "backed_up_keys": "what a user has backed up is theirs, and encrypted",
    "blocked_rooms": "names rooms that must not come back",
    "sliding_sync_connections": "ends with the device; the nid of a room that is gone names none",
    "reports": "is what moderators have of a room that was deleted for it",
}


def test_every_table_is_deleted_from_or_has_a_reason() -> None:
    """A new table with a room's data is not forgotten when an operator deletes the room."""
    dsn = fresh_database()
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
    drop_database(dsn)
    deleted = {"events", *KNOWN, *BY_ROOM, *BY_SCOPE, *BY_ROOM_ID, *BY_EVENT}

    assert {row[0] for row in rows} == deleted | NOT_OF_ROOMS | KEPT.keys()
    assert not deleted & (NOT_OF_ROOMS | KEPT.keys())


def test_tables_of_other_things_do_not_name_rooms() -> None:
    """A column that is added to such a table makes it one of rooms."""
    dsn = fresh_database()
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public'"
        ).fetchall()
    drop_database(dsn)

    named = {table for table, column in rows if re.search(r"room|event", column)}

    assert named & NOT_OF_ROOMS == set()
