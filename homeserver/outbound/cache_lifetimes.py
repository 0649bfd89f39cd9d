"""How long a response may be cached, by its headers.

https://www.rfc-editor.org/rfc/rfc9111.html#section-4.2
"""

from email.utils import parsedate_to_datetime

from twisted.web.http_headers import Headers


def cache_lifetime(
    headers: Headers, now: float, *, default: float, least: float, most: float
) -> float:
    """The seconds for which a response received `now` may be cached.

    They are between `least` and `most`, and `default` without a header that says it.
    `Cache-Control` goes before `Expires` (RFC 9111, section 5.3).
    """
    directives = _cache_control(headers)
    seconds = default
    if "no-store" in directives or "no-cache" in directives:
        seconds = 0.0
    elif "max-age" in directives:
        value = directives["max-age"].strip('"')
        # Without a valid number, stale is the safe reading (RFC 9111, section 4.2.1).
        is_number = value.isascii() and value.isdigit()
        seconds = min(float(value[:12]), most) if is_number else 0.0
        seconds -= _age(headers)
    elif (expires := headers.getRawHeaders("Expires")) is not None:
        try:
            seconds = parsedate_to_datetime(expires[0]).timestamp() - now
        except (ValueError, OverflowError):
            seconds = 0.0
    return min(max(seconds, least), most)


def _cache_control(headers: Headers) -> dict[str, str]:
    values = ",".join(headers.getRawHeaders("Cache-Control") or ())
    pairs = (directive.strip().partition("=") for directive in values.split(","))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _age(headers: Headers) -> float:
    """The seconds that a response has spent in caches on its way."""
    value = (headers.getRawHeaders("Age") or ["0"])[0]
    return float(value[:12]) if value.isascii() and value.isdigit() else 0.0
