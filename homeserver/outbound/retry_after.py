"""When to send a request again, by the headers of a response.

https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
"""

from email.utils import parsedate_to_datetime

from twisted.web.http_headers import Headers

MAX_DIGITS = 12


def retry_after_ms(headers: Headers, now: float) -> int | None:
    """The ms to wait after a response received `now`, or `None` without a valid header."""
    value = (headers.getRawHeaders("Retry-After") or [""])[0].strip()
    if value.isascii() and value.isdigit():
        return int(value[:MAX_DIGITS]) * 1000
    try:
        return max(0, int((parsedate_to_datetime(value).timestamp() - now) * 1000))
    except (ValueError, OverflowError):
        return None
