"""The one secret of MIXGATE_HOME."""

import os
import threading

import pytest

from gateway.errors import ConfigError
from gateway.keys.home_secret import FILE_NAME, derive, open_home_secrets


def test_it_is_made_once_and_for_its_owner_only(tmp_path):
    home = tmp_path / "home"
    first = open_home_secrets(home)
    path = home / FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert open_home_secrets(home) == first
    assert [one.name for one in home.iterdir()] == [FILE_NAME]


def test_whoever_comes_second_gets_the_first_ones(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(open_home_secrets(tmp_path).pepper)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_each_purpose_has_a_secret_of_its_own_and_none_is_printed():
    one, other = derive(b"a" * 32), derive(b"b" * 32)
    assert len({one.pepper.hex(), one.admin_token.reveal()[4:], other.pepper.hex(), (b"a" * 32).hex()}) == 4
    assert one.pepper.hex() not in repr(one)
    assert repr(one) == "HomeSecrets(***)"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_one_that_others_can_read_is_refused(tmp_path, mode):
    open_home_secrets(tmp_path)
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(ConfigError, match="others can read"):
        open_home_secrets(tmp_path)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_one_that_is_damaged_is_refused_and_not_replaced(tmp_path, content):
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged"):
        open_home_secrets(tmp_path)
    assert path.read_bytes() == content


def test_a_link_or_a_pipe_is_none(tmp_path):
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        open_home_secrets(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    os.mkfifo(tmp_path / FILE_NAME, 0o600)
    with pytest.raises(ConfigError, match="regular"):
        open_home_secrets(tmp_path)
