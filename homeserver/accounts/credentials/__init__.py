"""What proves who somebody is: passwords, tokens, shared secrets."""
