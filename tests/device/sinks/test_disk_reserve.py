"""The disk reserve on a real disk of 1 MiB: 5 % of it are 52 kB."""

from __future__ import annotations

from edgekit.device.sinks.disk_reserve import PICTURES, RECORDS, VIDEO, DiskReserve


def test_video_pauses_first_then_images_then_records(small_disk, fill):
    found = []
    for but_bytes in (60_000, 40_000, 20_000, 8_000):
        (small_disk / "ballast").unlink(missing_ok=True)
        fill(small_disk, but_bytes)
        reserves = [DiskReserve(small_disk / "new" / "r", share, None) for share in (VIDEO, PICTURES, RECORDS)]
        found.append([reserve.shortage() != "" for reserve in reserves])
    assert found == [[False] * 3, [True, False, False], [True, True, False], [True] * 3]


def test_a_size_replaces_the_default_and_zero_is_no_reserve(small_disk, fill):
    fill(small_disk)
    assert DiskReserve(small_disk, VIDEO, 0).shortage() == ""
    (small_disk / "ballast").unlink()
    assert DiskReserve(small_disk, VIDEO, 2 << 20).shortage() != ""
