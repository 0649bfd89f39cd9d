"""Errors of the Client-Server API: one class for each errcode of this server.

Code below `web/` raises one of these where the error is detected; `web/` turns it into a response,
in one place. A class has its `errcode` and HTTP `status`; extra members of the response are keyword
arguments. Any other exception that escapes is a defect, and the response is `M_UNKNOWN`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from typing import Any, Self


class MatrixError(Exception):
    """The response is `{"errcode": …, "error": str(self), **extra}` with `status`."""

    errcode: str = "M_UNKNOWN"
    status: int = 500

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.extra = extra

    def body(self) -> dict[str, Any]:
        return {"errcode": self.errcode, "error": str(self), **self.extra}

    def headers(self) -> dict[str, str]:
        """HTTP headers of the response."""
        return {}

    def fresh(self) -> Self:
        """The same error without traceback and cause, for a cache and for each that gets it.

        A traceback grows with each `raise`, and keeps alive what its functions were working on.
        """
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__)
        return error


class Forbidden(MatrixError):
    """The request was understood, but this user may not do it."""

    errcode, status = "M_FORBIDDEN", 403


class GuestAccessForbidden(MatrixError):
    """Guests may not do this, or not in this room."""

    errcode, status = "M_GUEST_ACCESS_FORBIDDEN", 403


class MissingToken(MatrixError):
    """The endpoint requires an access token, and the request has none."""

    errcode, status = "M_MISSING_TOKEN", 401


class UnknownToken(MatrixError):
    """The access token is invalid or no longer valid; `soft_logout`: the device still exists."""

    errcode, status = "M_UNKNOWN_TOKEN", 401

    def __init__(self, message: str, *, soft_logout: bool = False) -> None:
        super().__init__(message, soft_logout=soft_logout)


class Unauthorized(MatrixError):
    """The request of another server is not signed correctly."""

    errcode, status = "M_UNAUTHORIZED", 401


class UserLocked(MatrixError):
    """An administrator locked the account; clients keep their session and try again."""

    errcode, status = "M_USER_LOCKED", 401

    def __init__(self, message: str) -> None:
        super().__init__(message, soft_logout=True)


class UserSuspended(MatrixError):
    """An administrator suspended the account: the user may read and leave, not write."""

    errcode, status = "M_USER_SUSPENDED", 403


class UserLimitExceeded(MatrixError):
    """The account has reached a limit.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#common-error-codes
    """

    errcode, status = "M_USER_LIMIT_EXCEEDED", 403

    def __init__(self, message: str) -> None:
        about = "https://spec.matrix.org/v1.19/client-server-api/#common-error-codes"
        super().__init__(message, info_uri=about)


class NotJson(MatrixError):
    """The body was not JSON."""

    errcode, status = "M_NOT_JSON", 400


class BadJson(MatrixError):
    """The body was JSON, but keys were missing or values had the wrong type."""

    errcode, status = "M_BAD_JSON", 400


class NotFound(MatrixError):
    """The requested thing does not exist, or this user may not know of it."""

    errcode, status = "M_NOT_FOUND", 404


class Unrecognized(MatrixError):
    """No such endpoint."""

    errcode, status = "M_UNRECOGNIZED", 404


class MethodNotAllowed(MatrixError):
    """The endpoint exists, but not with this HTTP method."""

    errcode, status = "M_UNRECOGNIZED", 405


class LimitExceeded(MatrixError):
    """Too many requests; trying again makes sense after `retry_after_ms`."""

    errcode, status = "M_LIMIT_EXCEEDED", 429

    def __init__(self, retry_after_ms: int, message: str = "Too many requests") -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)
        self.retry_after_ms = retry_after_ms

    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(-(-self.retry_after_ms // 1000))}


class Unavailable(MatrixError):
    """The server cannot handle the request now: it is stopping, overloaded, or without database."""

    errcode, status = "M_UNKNOWN", 503


class UnableDueToPartialState(MatrixError):
    """Another server requested something that needs the full state of a partial-state room.

    Spec: MSC3895
    """

    errcode, status = "M_UNABLE_DUE_TO_PARTIAL_STATE", 404


class RequestTimeout(MatrixError):
    """An application service had to be asked, and has not answered in time.

    Spec: https://spec.matrix.org/v1.19/application-service-api/#querying
    """

    errcode, status = "M_UNKNOWN", 408


class RemoteServerFailed(MatrixError):
    """Another server had to be asked, and gave no usable response; the client cannot fix that."""

    errcode, status = "M_UNKNOWN", 502


class RefusedByRemote(MatrixError):
    """Another server refused the request; the client gets the same error."""

    def __init__(self, status: int, errcode: str, message: str) -> None:
        super().__init__(message)
        self.status = status  # that of the remote error
        self.errcode = errcode


class InvalidParam(MatrixError):
    """A parameter has a value that is not allowed."""

    errcode, status = "M_INVALID_PARAM", 400


class MissingParam(MatrixError):
    """A required parameter is missing."""

    errcode, status = "M_MISSING_PARAM", 400


class WrongRoomKeysVersion(MatrixError):
    """The backup is not the user's current one; the response names that."""

    errcode, status = "M_WRONG_ROOM_KEYS_VERSION", 403

    def __init__(self, message: str, *, current_version: str) -> None:
        super().__init__(message, current_version=current_version)


class InvalidSignature(MatrixError):
    """A signature of a key is missing, or does not match the key."""

    errcode, status = "M_INVALID_SIGNATURE", 400


class TooLarge(MatrixError):
    """The request, or the event made of it, is larger than allowed."""

    errcode, status = "M_TOO_LARGE", 413


class CannotOverwriteMedia(MatrixError):
    """The media has its content already."""

    errcode, status = "M_CANNOT_OVERWRITE_MEDIA", 409


class NotYetUploaded(MatrixError):
    """The address of the media exists, but its content has not been uploaded."""

    errcode, status = "M_NOT_YET_UPLOADED", 504


class RemoteTooLarge(MatrixError):
    """A file of another server has more bytes, or pixels, than this server allows."""

    errcode, status = "M_TOO_LARGE", 502


class CannotMakeThumbnail(MatrixError):
    """The content is not a picture of a known kind."""

    errcode, status = "M_UNKNOWN", 400


class UserInUse(MatrixError):
    """The user id is taken."""

    errcode, status = "M_USER_IN_USE", 400


class InvalidUsername(MatrixError):
    """The user id is not one that may be registered."""

    errcode, status = "M_INVALID_USERNAME", 400


class Exclusive(MatrixError):
    """The name is in the exclusive namespace of an application service."""

    errcode, status = "M_EXCLUSIVE", 400


class UnknownDevice(MatrixError):
    """The device that an application service acts as does not belong to the user."""

    errcode, status = "M_UNKNOWN_DEVICE", 400


class WeakPassword(MatrixError):
    """The password does not meet the server's policy."""

    errcode, status = "M_WEAK_PASSWORD", 400


class RoomInUse(MatrixError):
    """The room alias is taken."""

    errcode, status = "M_ROOM_IN_USE", 400


class InvalidRoomState(MatrixError):
    """The initial state of a new room is not valid."""

    errcode, status = "M_INVALID_ROOM_STATE", 400


class UnsupportedRoomVersion(MatrixError):
    """A room of this version cannot be created here."""

    errcode, status = "M_UNSUPPORTED_ROOM_VERSION", 400


class IncompatibleRoomVersion(MatrixError):
    """The requesting server does not support the version of the room."""

    errcode, status = "M_INCOMPATIBLE_ROOM_VERSION", 400

    def __init__(self, message: str, *, room_version: str) -> None:
        super().__init__(message, room_version=room_version)


class UnableToAuthoriseJoin(MatrixError):
    """This server cannot check whether the user meets a condition of a restricted room."""

    errcode, status = "M_UNABLE_TO_AUTHORISE_JOIN", 400


class UnableToGrantJoin(MatrixError):
    """The user may join a restricted room, but no user of this server can authorise the join."""

    errcode, status = "M_UNABLE_TO_GRANT_JOIN", 400


class BadState(MatrixError):
    """The change does not fit the present state, such as an unban of a user who is not banned."""

    errcode, status = "M_BAD_STATE", 400


class BadAlias(MatrixError):
    """A canonical alias event names an alias that does not point to the room."""

    errcode, status = "M_BAD_ALIAS", 400


class CannotLeaveServerNoticeRoom(MatrixError):
    """The server notices room cannot be left."""

    errcode, status = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM", 403


class CaptchaInvalid(MatrixError):
    """The captcha was not solved."""

    errcode, status = "M_CAPTCHA_INVALID", 401


class DuplicateAnnotation(MatrixError):
    """The user has already reacted to the event with this key."""

    errcode, status = "M_DUPLICATE_ANNOTATION", 400


class ProfileTooLarge(MatrixError):
    """With this field the profile would exceed its size limit."""

    errcode, status = "M_PROFILE_TOO_LARGE", 400


class KeyTooLarge(MatrixError):
    """The name of the profile field is too long."""

    errcode, status = "M_KEY_TOO_LARGE", 400


class InviteBlocked(MatrixError):
    """The invited user accepts no invites from this sender."""

    errcode, status = "M_INVITE_BLOCKED", 403


class ThreepidInUse(MatrixError):
    """The third-party identifier belongs to an account of this server already."""

    errcode, status = "M_THREEPID_IN_USE", 400


class ThreepidNotFound(MatrixError):
    """No account of this server has the third-party identifier."""

    errcode, status = "M_THREEPID_NOT_FOUND", 400


class ThreepidDenied(MatrixError):
    """The server does not permit this third-party identifier."""

    errcode, status = "M_THREEPID_DENIED", 403


class ThreepidAuthFailed(MatrixError):
    """The client has not proved that the third-party identifier is the user's."""

    errcode, status = "M_THREEPID_AUTH_FAILED", 403


class ThreepidMediumNotSupported(MatrixError):
    """The server cannot validate identifiers of this medium."""

    errcode, status = "M_THREEPID_MEDIUM_NOT_SUPPORTED", 400


class ServerNotTrusted(MatrixError):
    """This server does not trust the identity server."""

    errcode, status = "M_SERVER_NOT_TRUSTED", 400


class MailNotSent(Unavailable):
    """The mail server did not accept a mail; trying again later makes sense."""

    errcode = "M_EMAIL_SEND_ERROR"


class MailRefused(MailNotSent):
    """The mail server responded, and did not accept this mail; it may accept others."""
