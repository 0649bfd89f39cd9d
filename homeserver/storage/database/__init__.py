"""The database itself: connections, batches, migrations, and the embedded PostgreSQL."""
