SELECT count()
FROM billable_events
WHERE startsWith(transaction_id, {transactions:String})
FORMAT TabSeparated
