"""Events of labels: hold time, cooldown, tracks and gaps."""

from __future__ import annotations

import pytest

from edgekit.device.sinks.events import EventDetector, EventOptions


def play(feed, rules: EventOptions, *labels: str | tuple[str, ...] | None, step_s: float = 0.5):
    """Process one frame per step with these faces; return (time, track, previous, label) of each event."""
    detector = EventDetector(rules)
    events = []
    for index, faces in enumerate(labels):
        faces = () if faces is None else (faces,) if isinstance(faces, str) else faces
        _, result = feed.next(*faces, at_s=100 + index * step_s)
        events += detector.update(result)
    return [(event.monotonic_s - 100, event.track_id, event.previous, event.label) for event in events]


@pytest.mark.parametrize(
    ("labels", "events"),
    [
        (["sad"] * 6, [(1.0, 1, None, "sad")]),
        (["sad"] * 4 + ["happy"] + ["sad"] * 5, [(1.0, 1, None, "sad")]),
        (["sad", "happy"] * 10, []),
    ],
)
def test_a_label_is_an_event_once_it_held_and_not_again(feed, labels, events):
    assert play(feed, EventOptions(event_hold=1.0), *labels) == events


def test_each_change_is_an_event_that_names_what_was_before(feed):
    labels = ["sad"] * 3 + ["happy"] * 3 + ["sad"] * 3
    expected = [(1.0, 1, None, "sad"), (2.5, 1, "sad", "happy"), (4.0, 1, "happy", "sad")]
    assert play(feed, EventOptions(event_hold=1.0), *labels) == expected


def test_the_cooldown_delays_a_change_that_lasts_and_swallows_one_that_does_not(feed):
    rules = EventOptions(event_hold=0, event_cooldown=3.0)
    labels = ["sad"] * 2 + ["happy"] * 2 + ["sad"] * 2 + ["happy"] * 4
    assert play(feed, rules, *labels) == [(0, 1, None, "sad"), (3.0, 1, "sad", "happy")]


def test_tracks_have_rules_of_their_own(feed):
    pairs = [("sad", "calm")] * 3 + [("sad", "happy")] * 3
    expected = [(1.0, 1, None, "sad"), (1.0, 2, None, "calm"), (2.5, 2, "calm", "happy")]
    assert play(feed, EventOptions(event_hold=1.0, event_cooldown=1.0), *pairs) == expected


def test_a_face_missed_for_a_moment_continues_and_one_missed_for_long_starts_again(feed):
    rules = EventOptions(event_hold=1.0)
    assert play(feed, rules, "sad", None, "sad", None) == [(1.0, 1, None, "sad")]
    assert play(feed, rules, "sad", None, None, None, "sad", "sad") == []
    # A cooldown keeps a track for longer, but does not join two short visits into a long one.
    remembered = EventOptions(event_hold=1.0, event_cooldown=60.0)
    assert play(feed, remembered, "sad", None, None, None, "sad", "sad") == []
    assert play(feed, rules, *["sad"] * 3, None, None, None, *["sad"] * 3) == [
        (1.0, 1, None, "sad"),
        (4.0, 1, None, "sad"),
    ]


def test_a_label_is_held_at_a_frame_rate_below_one_frame_per_second_too(feed):
    labels = ["sad"] * 5
    # The hold time starts at the second frame, because the frame period is unknown before.
    assert play(feed, EventOptions(event_hold=3.0), *labels, step_s=2) == [(6, 1, None, "sad")]
    missed = ["sad"] * 3 + [None] * 2 + ["sad"] * 5
    assert play(feed, EventOptions(event_hold=5.0), *missed, step_s=2) == [(16, 1, None, "sad")]


def test_only_listed_labels_become_events_and_other_labels_end_them(feed):
    rules = EventOptions(event_hold=0, event_label=("sad",))
    labels = ["sad", "happy", "sad", "sad", "calm"]
    # `previous` is the label of the latest event.
    assert play(feed, rules, *labels) == [(0, 1, None, "sad"), (1.0, 1, "sad", "sad")]


def test_an_uncertain_face_makes_no_event_and_no_change(feed):
    rules = EventOptions(event_hold=1.0)
    assert play(feed, rules, *["uncertain"] * 8) == []
    assert play(feed, rules, *["sad"] * 3, *["uncertain"] * 8, *["sad"] * 4) == [(1.0, 1, None, "sad")]
    expected = [(1.0, 1, None, "sad"), (7.0, 1, "sad", "happy")]
    assert play(feed, rules, *["sad"] * 3, *["uncertain"] * 8, "sad", *["happy"] * 3) == expected
    # A hold that is interrupted for longer than a gap starts again.
    assert play(feed, rules, *["sad"] * 3, "happy", *["uncertain"] * 8, *["happy"] * 3) == expected


def test_every_event_has_an_id_of_its_own_over_runs_too(feed):
    ids = set()
    for _ in range(2):
        detector = EventDetector(EventOptions(event_hold=0))
        for label in ("sad", "happy", "sad"):
            ids |= {event.event_id for event in detector.update(feed.next(label, "calm")[1])}
    assert len(ids) == 8


def test_faces_that_nobody_tracks_go_by_their_place(feed):
    detector = EventDetector(EventOptions(event_hold=1.0))
    events = []
    for index in range(4):
        events += detector.update(feed.next("sad", "happy", at_s=index * 0.5, ids=None)[1])
    assert [(event.track_id, event.label) for event in events] == [(None, "sad"), (None, "happy")]


def test_an_outage_before_an_uncertain_face_does_not_count_as_hold_time(feed):
    detector = EventDetector(EventOptions(event_hold=1.0))
    for at_s, uncertain in ((0, False), (0.1, False), (0.2, False), (20.2, True), (20.3, False), (21.2, False)):
        assert detector.update(feed.next("sad", at_s=at_s, uncertain=uncertain)[1]) == []
    assert [event.held_s for event in detector.update(feed.next("sad", at_s=21.3)[1])] == [pytest.approx(1.0)]


@pytest.mark.parametrize("cooldown_s", [0.0, 60.0])
def test_a_track_that_returns_within_its_cooldown_causes_no_new_event(feed, cooldown_s):
    rules = EventOptions(event_hold=0, event_cooldown=cooldown_s)
    labels = ["sad", *[None] * 20, "sad"]
    assert len(play(feed, rules, *labels)) == (1 if cooldown_s else 2)
