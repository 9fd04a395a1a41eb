SELECT organization_id, count(), toString(sum(reinterpretAsUInt256(SHA256(concat(
    toString(length(organization_id)), ':', organization_id,
    toString(length(transaction_scope)), ':', transaction_scope,
    toString(length(transaction_id)), ':', transaction_id,
    toString(length(external_customer_id)), ':', external_customer_id,
    toString(length(external_subscription_id)), ':', external_subscription_id,
    toString(length(code)), ':', code,
    toString(length(milliseconds)), ':', milliseconds,
    toString(length(quantity)), ':', quantity,
    toString(length(properties)), ':', properties
)))))
FROM (
    SELECT
        organization_id, transaction_scope, transaction_id, external_customer_id, external_subscription_id, code,
        toString(toUnixTimestamp64Milli(timestamp)) AS milliseconds,
        ifNull(toString(value), 'null') AS quantity,
        properties
    FROM billable_events
    WHERE startsWith(external_customer_id, {customers:String})
)
GROUP BY organization_id
FORMAT TabSeparated
