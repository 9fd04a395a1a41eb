SELECT transaction_id
FROM billable_events
WHERE (code, external_customer_id, transaction_id) IN {markers:Array(Tuple(String, String, String))}
FORMAT TabSeparated
