SELECT uniqExact(organization_id, transaction_scope, transaction_id)
FROM usage_event_conflicts
WHERE startsWith(external_customer_id, {customers:String})
FORMAT TabSeparated
