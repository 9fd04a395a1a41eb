SELECT organization_id, code, external_customer_id, external_subscription_id, toUnixTimestamp(hour), events, toString(value_sum)
FROM usage_by_hour
WHERE startsWith(external_customer_id, {customers:String})
FORMAT TabSeparated
