"""End-to-end encryption: what the server keeps and passes on for clients, and cannot read."""
