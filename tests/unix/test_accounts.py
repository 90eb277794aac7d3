"""Users and groups are looked up completely, or refused by name."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forkfirst import errors
from forkfirst.unix import accounts


def test_an_account_is_the_same_by_name_and_by_number() -> None:
    """Both are what people write."""
    entry = pwd.getpwuid(os.getuid())
    by_name = accounts.look_up_user(entry.pw_name)
    assert by_name == accounts.look_up_user(str(entry.pw_uid))
    assert (by_name.uid, by_name.gid, by_name.home) == (entry.pw_uid, entry.pw_gid, entry.pw_dir)


def test_the_groups_have_the_primary_one_and_every_membership() -> None:
    """A daemon with only its primary group loses access that the administrator gave it."""
    for entry in pwd.getpwall():
        account = accounts.look_up_user(entry.pw_name)
        member_of = {group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem}
        assert {account.gid, *member_of} <= set(account.groups)
        assert account.groups == tuple(sorted(set(account.groups)))


@pytest.mark.parametrize("text", ["no-such-user-here", "", "\0", "3999999999"])
def test_an_unknown_user_is_refused_by_name(text: str) -> None:
    """The message says what was looked for."""
    with pytest.raises(errors.ConfigError) as caught:
        accounts.look_up_user(text)
    assert f'"{text}"' in str(caught.value)
    assert caught.value.exit_status == 78


@pytest.mark.parametrize("text", ["-1", "4294967295", "4294967296", "+1", " 1", "1_0", "٣"])
def test_the_number_that_means_no_change_is_no_identity(text: str) -> None:
    """(uid_t)-1 tells setresuid(2) to change nothing: root would stay root."""
    with pytest.raises(errors.ConfigError):
        accounts.look_up_user(text)
    with pytest.raises(errors.ConfigError):
        accounts.look_up_group(text)


def test_a_group_is_found_by_name_and_by_number() -> None:
    """A number is enough for the kernel, so it need not be in the database."""
    entry = grp.getgrgid(os.getgid())
    assert accounts.look_up_group(entry.gr_name) == entry.gr_gid
    assert accounts.look_up_group("4294967294") == 4294967294


@given(st.text())
def test_no_text_crashes_the_look_up(text: str) -> None:
    """The text comes from a command line; surrogates stand for bytes that are not UTF-8."""
    for look_up in (accounts.look_up_user, accounts.look_up_group):
        with contextlib.suppress(errors.ConfigError):
            look_up(text)
