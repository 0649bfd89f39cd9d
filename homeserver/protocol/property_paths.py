r"""Dot-separated property paths: `content.m\.relates_to.rel_type` and the like.

A dot or backslash that is part of a property name is escaped with a backslash; any other backslash
stands for itself.

Spec: https://spec.matrix.org/v1.19/appendices/#dot-separated-property-paths
"""

import re

_TOKEN = re.compile(r"\\[.\\]|.", re.DOTALL)


def split_path(path: str) -> list[str]:
    """The property names of a path, outermost first."""
    names = [""]
    for token in _TOKEN.findall(path):
        if token == ".":
            names.append("")
        else:
            names[-1] += token[-1]
    return names
