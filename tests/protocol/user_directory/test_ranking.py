"""Ranking: those whom the searcher probably means come first."""

from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.user_directory.ranking import MAX_TERM, DirectoryTerm, FoundUser, rank

LOCAL = "example.org"


def user(name: str | None, user_id: str = "@x:example.org", **more: bool) -> FoundUser:
    """A user with a name, and an avatar unless `has_avatar` is false."""
    avatar = "mxc://example.org/avatar" if more.get("has_avatar", True) else None
    return FoundUser(user_id, name, avatar, is_shared=more.get("is_shared", False))


def order(term: str, *users: FoundUser) -> list[FoundUser]:
    """The users in order."""
    parsed = DirectoryTerm.parse(term)
    return sorted(users, key=lambda each: rank(parsed, each, LOCAL))


def test_exact_name_comes_first() -> None:
    """Then names that begin with the term, then names that have it."""
    later, beginning, exact = user("Mary Ann"), user("Anna"), user("ANN")

    assert order("ann", later, beginning, exact) == [exact, beginning, later]


def test_localpart_counts_as_a_name() -> None:
    """Many users have no other name."""
    beginning, exact = user("Anna"), user(None, "@ann:example.org")

    assert order("ann", beginning, exact) == [exact, beginning]


def test_shared_room_comes_before_local_before_complete() -> None:
    """Among users who match equally well."""
    bare = user(None, "@anna1:example.org", has_avatar=False)
    complete = user("Anna", "@anna2:example.org")
    shared = user("Anna", "@anna3:other.org", is_shared=True)
    remote = user("Anna", "@anna0:other.org")

    assert order("ann", bare, remote, complete, shared) == [shared, complete, bare, remote]


def test_user_id_is_not_compared_with_names() -> None:
    """Somebody who calls themselves like another user's id does not come before that user."""
    impostor = user("@bob:example.org", "@a:example.org", is_shared=True)
    bob = user("Robert", "@bob:example.org")

    assert order("@bob", impostor, bob) == [bob, impostor]
    assert order("@bob:example.org", impostor, bob) == [bob, impostor]


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_any_text_has_a_rank(term: str, name: str, localpart: str) -> None:
    """Nothing that users or other servers write fails."""
    parsed = DirectoryTerm.parse(term)

    assert len(parsed.text) <= MAX_TERM
    assert order(term, user(name, f"@{localpart}:example.org"))
