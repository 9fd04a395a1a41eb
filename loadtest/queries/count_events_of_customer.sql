SELECT count()
FROM billable_events
WHERE external_customer_id = {customer:String}
FORMAT TabSeparated
