SELECT uniqExact(transaction_id)
FROM usage_event_conflicts
WHERE startsWith(transaction_id, {transactions:String})
FORMAT TabSeparated
