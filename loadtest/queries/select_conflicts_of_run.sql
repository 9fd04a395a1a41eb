SELECT transaction_id, toUnixTimestamp64Milli(timestamp)
FROM usage_event_conflicts FINAL
WHERE startsWith(transaction_id, {transactions:String})
FORMAT TabSeparated
