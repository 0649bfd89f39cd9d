"""The endpoints that application services use, and those about their networks."""
