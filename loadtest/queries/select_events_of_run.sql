SELECT organization_id, transaction_scope, transaction_id, code, external_customer_id, external_subscription_id, toUnixTimestamp64Milli(timestamp), toString(value), properties
FROM billable_events
WHERE startsWith(external_customer_id, {customers:String})
FORMAT TabSeparated
