"""End-to-end encryption: what the server stores and passes on for devices that encrypt."""
