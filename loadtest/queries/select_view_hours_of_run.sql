SELECT organization_id, code, external_customer_id, toUnixTimestamp(hour), sum(events), toString(sum(value_sum))
FROM usage_by_hour
WHERE startsWith(external_customer_id, {customers:String})
GROUP BY organization_id, code, external_customer_id, hour
FORMAT TabSeparated
