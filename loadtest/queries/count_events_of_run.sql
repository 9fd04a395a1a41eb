SELECT count()
FROM billable_events
WHERE startsWith(external_customer_id, {customers:String})
FORMAT TabSeparated
