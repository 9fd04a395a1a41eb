SELECT organization_id, transaction_scope, transaction_id
FROM billable_events
WHERE (code, external_customer_id, transaction_id) IN {markers:Array(Tuple(String, String, String))}
FORMAT TabSeparated
