from edgekit.device.accounting import Account


def test_items_that_are_neither_written_nor_dropped_wait() -> None:
    account = Account("events")
    account.produce(5)
    account.write(2)
    account.drop("disk full")

    assert account.waiting == 2
    assert account.lost == 1
    assert account.as_document() == {"produced": 5, "written": 2, "dropped": {"disk full": 1}, "waiting": 2}
