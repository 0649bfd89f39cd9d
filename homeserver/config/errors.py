"""Errors of the configuration, in a separate module that the command line loads before others."""


class ConfigError(Exception):
    """The configuration cannot be used; the message has a line for each problem."""


class CertificateError(Exception):
    """A certificate or its key cannot be used; the message says which files and why."""
