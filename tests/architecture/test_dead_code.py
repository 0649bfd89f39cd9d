"""Checks that unused code is removed."""

from vulture import Vulture

from tests.architecture.source import PACKAGES, TOP

# Settings are fields of sections, which only the loader reads by name.
DECLARATIONS = ("homeserver/config/",)
# Names that a library calls or reads, or that are sent to clients.
CALLED_BY_TWISTED = {
    "addressTypes",
    "authenticators",
    "autocomplete",
    "cachedConnectionTimeout",
    "clientConnectionForTLS",
    "connectionMade",
    "doRead",
    "doWrite",
    "endpointForURI",
    "getMailData",
    "getMailFrom",
    "getMailTo",
    "handshakeCompleted",
    "installNameResolver",
    "logPrefix",
    "maxPersistentPerHost",
    "noisy",
    "requireAuthentication",
    "requireTransportSecurity",
    "sentMail",
    "stopProducing",
    "timeoutConnection",
    "transportSemantics",
}
CALLED_BY_AUTOBAHN = {
    "autoPingTimeout",
    "onClose",
    "onConnect",
    "onMessage",
    "onOpen",
    "utf8validateIncoming",
    "wasClean",
}
CALLED_BY_TREQ = {"to_uri"}
CALLED_BY_BOTOCORE = {"seekable", "tell"}
CALLED_BY_PSYCOPG = {"_autocommit", "dump"}
CALLED_BY_THE_LANGUAGE = {"__call__"}
SENT_TO_CLIENTS = {
    "avatar",
    "bump_stamp",
    "encryption",
    "guest_can_join",
    "heroes",
    "highlight_count",
    "invited_count",
    "logo_uri",
    "notification_count",
    "num_live",
    "policy_uri",
    "response_types",
    "token_endpoint_auth_method",
    "tos_uri",
}
ALLOWED = {
    *CALLED_BY_TWISTED,
    *CALLED_BY_AUTOBAHN,
    *CALLED_BY_TREQ,
    *CALLED_BY_BOTOCORE,
    *CALLED_BY_PSYCOPG,
    *CALLED_BY_THE_LANGUAGE,
    *SENT_TO_CLIENTS,
}


def test_everything_is_used() -> None:
    """The server, a tool, a benchmark or a test uses every name."""
    vulture = Vulture()
    folders = [TOP / folder for folder in (*PACKAGES, "tests", "benchmarks", "tools")]
    vulture.scavenge([str(folder) for folder in folders], exclude=["node_modules"])

    unused = [
        f"{path.as_posix()}:{item.first_lineno}: {item.typ} {item.name}"
        for item in vulture.get_unused_code(min_confidence=60)
        if (path := item.filename.relative_to(TOP)).parts[0] in PACKAGES
        and not path.as_posix().startswith(DECLARATIONS)
        and item.name not in ALLOWED
    ]

    assert unused == []
