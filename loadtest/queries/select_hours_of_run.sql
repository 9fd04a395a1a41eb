SELECT organization_id, code, external_customer_id, '' AS all_subscriptions, toUnixTimestamp(toStartOfHour(timestamp, 'UTC')) AS hour, count(), toString(sum(ifNull(value, toDecimal256(0, 12))))
FROM billable_events
WHERE startsWith(external_customer_id, {customers:String})
GROUP BY organization_id, code, external_customer_id, hour
FORMAT TabSeparated
