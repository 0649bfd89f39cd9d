"""Single sign-on over the API, and its pages."""
