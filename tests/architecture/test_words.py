"""Private words that must not come back: the project uses the standard term of each."""

import re

from tests.architecture.source import PACKAGES, TOP, modules

# A pattern, in lower case, and what to write instead.
WORDS = {
    r"\babroad\b|\bfrom afar\b|\belsewhere\b(?![.:])": "remote, on another server",
    r"whoever|whomever": "the actor: user, client, server, caller",
    r"\b(of|are) ours\b|\bours\b": "local",
    r"for ever\b": "permanently, without end",
    r"\banew\b": "again",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bat hand\b": "in memory, cached",
    r"\b(get|gets|got|getting) hold of\b": "fetch, load",
    r"\bbears? (it |them )?out\b": "confirm",
    r"\b(is|are|was|were|be|been) believed\b": "trusted",
    r"\bby the word of\b": "as reported by",
    r"\b(is|are|was|were) told\b": "is notified, is sent, receives",
    r"\bof another make\b": "another implementation",
    r"\b(hung|hang|hangs) up on\b": "is disconnected",
    r"\brehears": "preview",
    r"\b(judge|judged|judges|judging|judgement|judgements)\b": "check, evaluate, decide",
    r"\bwithdrawals?\b": "rescinded invite",
    r"\blively\b": "active",
    r"\bturns? of the reactor\b|\bin one turn\b": "without yielding to the reactor",
    r"\bcomes? into (a|the) rooms?\b|\blets? (a|the|its) users? in\b": "joins, admits",
    r"\bstate is whole\b|\bmade whole\b": "full state",
    r"\bhandshakes?\b": "membership request, unless it is one of TLS or of a WebSocket",
}
# Lines that may have such a word, by their module and text.
MAY_SAY = {
    r"\bhandshakes?\b": re.compile(r"HANDSHAKE|TLS|Completed|socket|stream|proxy|offered"),
}
# This file has the words itself, and released entries of the changelog stay unchanged.
LEFT_OUT = ("tests/architecture/test_words.py", "CHANGELOG.md")


def _texts() -> dict[str, str]:
    found = {
        module.name: module.text for module in modules(*PACKAGES, "tests", "benchmarks", "tools")
    }
    documents = (*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"))
    found |= {str(path.relative_to(TOP)): path.read_text("utf-8") for path in documents}
    return {name: text for name, text in found.items() if name not in LEFT_OUT}


def test_words_with_a_standard_term_do_not_come_back() -> None:
    """A Matrix or database engineer reads this project without learning a dialect first."""
    found = []
    for name, text in _texts().items():
        lowered = text.lower()
        for pattern, instead in WORDS.items():
            for match in re.finditer(pattern, lowered):
                start = lowered.rfind("\n", 0, match.start()) + 1
                line = text[start : text.find("\n", match.start())]
                if pattern in MAY_SAY and MAY_SAY[pattern].search(f"{name}: {line}"):
                    continue
                number = text.count("\n", 0, match.start()) + 1
                found.append(f"{name}:{number}: {match[0]!r}: write {instead}")

    assert found == []
