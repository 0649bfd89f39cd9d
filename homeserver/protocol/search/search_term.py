"""The term of a search: which texts it finds, and what is to be highlighted in them.

A text is found if it has all words of the term. The last word may be the beginning of a longer one,
which also finds most inflections. A run of a script without spaces is found as it is, wherever it
begins and ends in the text.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
"""

from collections import Counter
from collections.abc import Collection, Iterator
from math import log
from typing import Final

from homeserver.protocol.search.words import (
    MAX_WORD,
    Run,
    normalised,
    pairs,
    runs,
    surface_words,
    tokens,
)

MAX_TERM: Final = 1_024  # characters that count
MAX_RUNS: Final = 16  # words that count
MAX_RUN: Final = 24  # characters of a run without spaces that count
MAX_COUNTED: Final = 16  # places of a word in a text
MIN_PREFIX: Final = 3  # characters of a last word that may be the beginning of another


class SearchTerm:
    """A search term. It finds nothing if it has no words (`is_empty`)."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TERM:
            # Without the word that is cut: the text need not have it.
            text = text[:MAX_TERM].rpartition(" ")[0] or text[:MAX_TERM]
        found = dict.fromkeys(runs(normalised(text)))
        cut = [run._replace(text=run.text[:MAX_RUN]) if run.is_unspaced else run for run in found]
        self._runs = tuple(cut[:MAX_RUNS])
        last = cut[-1] if 0 < len(cut) <= MAX_RUNS else Run("")
        self._prefix = None if last.is_unspaced or len(last.text) < MIN_PREFIX else last.text

    @property
    def is_empty(self) -> bool:
        """Whether it has no words, and so finds nothing."""
        return not self._runs

    def index_tokens(self) -> Iterator[tuple[str, bool]]:
        """What the index has of each text that is found: tokens, and whether each is a prefix."""
        for run, is_unspaced in self._runs:
            if not is_unspaced:
                yield run, run == self._prefix
            elif len(run) == 1:
                yield run, True
            else:
                for pair in pairs(run):
                    yield pair, False

    def matches(self, text: str) -> bool:
        """Whether a text is found, which is not normalised yet."""
        if not self._runs:
            return False
        text = normalised(text)
        return self._is_in(text, frozenset(tokens(text)))

    def rank(self, text: str) -> float:
        """How well a text is found: by how often it has the words, and how short it is.

        It is 0 for a text that is not found.
        """
        text = normalised(text)
        words = Counter(tokens(text))
        if not self._runs or not self._is_in(text, words):
            return 0.0
        rank = 0.0
        for run in self._runs:
            if run.is_unspaced:
                count = text.count(run.text)
            elif run.text == self._prefix:
                count = sum(words[word] for word in words if word.startswith(run.text))
            else:
                count = words[run.text]
            rank += 2.0 - 0.5 ** (min(count, MAX_COUNTED) - 1)
        return rank / (1 + log(1 + words.total()))

    def highlights(self, text: str) -> Iterator[str]:
        """The words of a text that are found in it, as it has them."""
        unspaced = [run.text for run in self._runs if run.is_unspaced]
        yield from (run for run in unspaced if run in text)
        wanted = frozenset(run.text for run in self._runs if not run.is_unspaced)
        for word in dict.fromkeys(surface_words(text)):
            # Most words are in ASCII, and one run each.
            found = (Run(word.lower()[:MAX_WORD]),) if word.isascii() else runs(normalised(word))
            for run, is_unspaced in found:
                if not is_unspaced and (run in wanted or self._begins(run)):
                    yield word
                    break

    def _is_in(self, text: str, words: Collection[str]) -> bool:
        """Whether a normalised text is found, which has these words."""
        return all(
            run.text in text
            if run.is_unspaced
            else run.text in words or (run.text == self._prefix and _has_prefix(words, run.text))
            for run in self._runs
        )

    def _begins(self, word: str) -> bool:
        return self._prefix is not None and word.startswith(self._prefix)


def _has_prefix(words: Collection[str], prefix: str) -> bool:
    return any(word.startswith(prefix) for word in words)
