"""Identity providers: OpenID Connect and CAS."""
