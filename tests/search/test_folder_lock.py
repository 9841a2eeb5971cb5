"""One driver a run folder."""

import pytest

from search.errors import BadInput
from search.folder_lock import is_driven, only_driver


def test_a_second_driver_is_refused_and_anyone_can_see_the_first(tmp_path):
    assert not is_driven(tmp_path)
    with only_driver(tmp_path):
        assert is_driven(tmp_path)
        with pytest.raises(BadInput, match="another squeeze works in"), only_driver(tmp_path):
            pass
        assert is_driven(tmp_path)  # the second took nothing from the first
    assert not is_driven(tmp_path)


def test_looking_takes_nothing(tmp_path):
    with only_driver(tmp_path):
        pass
    is_driven(tmp_path)
    with only_driver(tmp_path):
        assert is_driven(tmp_path)
