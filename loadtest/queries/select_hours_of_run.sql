SELECT code, external_customer_id, toUnixTimestamp(hour), sum(events), toString(sum(value_sum))
FROM usage_by_hour
WHERE startsWith(external_customer_id, {customers:String})
GROUP BY code, external_customer_id, hour
FORMAT TabSeparated
