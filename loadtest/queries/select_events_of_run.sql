SELECT organization_id, transaction_scope, transaction_id, code, external_customer_id, toUnixTimestamp64Milli(timestamp), toString(value)
FROM billable_events
WHERE startsWith(external_customer_id, {customers:String})
FORMAT TabSeparated
