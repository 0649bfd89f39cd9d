"""The refusal of an event by an authorisation rule, and the number of that rule.

Room versions number the same rules differently, because rules were added and removed. The code uses
the numbers of room version 12; `rule_broken` translates them into those of the event's own version,
so that a reader of the log finds the rule in the specification of that version.

Spec: https://spec.matrix.org/v1.19/rooms/v12/#authorisation-rules
"""

from homeserver.protocol.room_versions import RoomVersion


class RuleBroken(ValueError):
    """An event is not allowed; `rule` is its number in the specification of the room version."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


def rule_broken(version: RoomVersion, rule: str, message: str) -> RuleBroken:
    """The refusal by a rule that is given by its number in room version 12."""
    return RuleBroken(rule_number(version, rule), message)


def rule_number(version: RoomVersion, rule: str) -> str:
    """The number of a rule of room version 12, such as "5.3.2", in another version."""
    section, *steps = (int(number) for number in rule.split("."))
    if section == 5:
        steps = _member_steps(version, steps)
    elif section == 10:
        steps = _power_levels_steps(version, steps)
    return ".".join(str(number) for number in (_section(version, section), *steps))


def _section(version: RoomVersion, section: int) -> int:
    shift = 0
    if section >= 3 and not version.room_id_is_create_hash:
        shift -= 1  # rule 2, that the room id implies the create event, is new in version 12
    if section >= 5 and version.special_case_aliases_auth:
        shift += 1  # the rule on aliases came before the one on membership
    return section + shift


def _member_steps(version: RoomVersion, steps: list[int]) -> list[int]:
    kind, *rest = steps
    if kind == 3 and rest[0] > 5 and not version.restricted_joins:
        rest[0] -= 1  # 5.3.5, restricted joins
    if kind == 8 and not version.knocking:
        kind -= 1  # 5.7, knocks
    if kind > 2 and not version.restricted_joins:
        kind -= 1  # 5.2, the signature of the authorising server
    return [kind, *rest]


def _power_levels_steps(version: RoomVersion, steps: list[int]) -> list[int]:
    step, *rest = steps
    if step > 4 and not version.creators_outrank_everyone:
        step -= 1  # 10.4, creators are not listed
    if step > 2 and not version.integer_power_levels:
        step -= 2  # 10.1 and 10.2, levels are integers
    return [step, *rest]
