SELECT
    (SELECT count() FROM billable_events),
    (SELECT count() FROM usage_event_conflicts FINAL),
    (SELECT count() FROM dead_letters FINAL)
FORMAT TabSeparated
