import errno
import os

import pytest

from edgekit.device.sinks.context import Account, loss_reason
from edgekit.errors import StorageError


def test_items_that_are_neither_written_nor_dropped_wait() -> None:
    account = Account("events")
    account.produce(5)
    account.write(2)
    account.drop("disk full")

    assert account.waiting == 2
    assert account.lost == 1
    assert account.as_document() == {"produced": 5, "written": 2, "dropped": {"disk full": 1}, "waiting": 2}


def test_a_closed_account_has_dropped_what_waited_and_ignores_late_counts() -> None:
    account = Account("jsonl")
    account.produce(5)
    account.write(2)
    account.close("disk too slow")
    account.produce(1)
    account.write(3)
    account.drop("disk full")

    assert account.as_document() == {"produced": 5, "written": 2, "dropped": {"disk too slow": 3}, "waiting": 0}
    assert account.describe() == "jsonl 2 of 5 written, 3 dropped (3 disk too slow)"


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "disk full"), (errno.EROFS, "disk read-only"), (errno.EIO, "input/output error")],
)
def test_the_reason_of_a_loss_is_that_of_the_operating_system(number: int, reason: str) -> None:
    cause = OSError(number, os.strerror(number))
    error = StorageError("cannot write 'r.jsonl'")
    error.__cause__ = cause

    assert loss_reason(cause) == loss_reason(error) == reason
