"""PostgreSQL: connections, migrations, and one module for each table, with its SQL."""
