"""Single sign-on with a real identity provider."""
