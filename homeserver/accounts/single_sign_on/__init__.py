"""Single sign-on: sign-ins in progress, and the accounts of their identities."""
