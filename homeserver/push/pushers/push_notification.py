"""A push notification: what one pusher sends to its gateway.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
"""

from collections.abc import Sequence

import msgspec


class PushNotification(msgspec.Struct, frozen=True):
    """The parts of a request, as JSON, and the count of unread messages that it has.

    `fields` are those of the notification before `devices`, and `device` is the pusher's.
    """

    fields: bytes
    device: bytes
    badge: int


def request_body(fields: bytes, devices: Sequence[bytes]) -> bytes:
    """The body of the request that notifies these devices."""
    return b'{"notification":{%b,"devices":[%b]}}' % (fields, b",".join(devices))
