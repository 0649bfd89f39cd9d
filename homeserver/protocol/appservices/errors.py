"""Errors of a ping that an application service asked for.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1appserviceappserviceidping
"""

from homeserver.protocol.errors import MatrixError


class UrlNotSet(MatrixError):
    """The application service has no address at which it can be reached.

    Spec: https://spec.matrix.org/v1.19/application-service-api/#pinging
    """

    errcode, status = "M_URL_NOT_SET", 400


class BadStatus(MatrixError):
    """The application service answered with an error, which is part of the response."""

    errcode, status = "M_BAD_STATUS", 502


class ConnectionTimeout(MatrixError):
    """The application service has not answered in time."""

    errcode, status = "M_CONNECTION_TIMEOUT", 504


class ConnectionFailed(MatrixError):
    """There was no usable response of the application service."""

    errcode, status = "M_CONNECTION_FAILED", 502
