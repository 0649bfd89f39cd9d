"""Bodies: strings that the database could not store."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.errors import BadJson
from homeserver.web.bodies import check_no_nul, contains_nul

texts = st.text(st.sampled_from('\0\\u0é"'))
documents = st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner))


@given(documents)
def test_nul_is_found_in_bytes_and_in_values_alike(document: object) -> None:
    """The quick look at the bytes and the slow one at the values never disagree."""
    has_nul = contains_nul(msgspec.json.encode(document))

    if has_nul:
        with pytest.raises(BadJson):
            check_no_nul(document)
    else:
        check_no_nul(document)
