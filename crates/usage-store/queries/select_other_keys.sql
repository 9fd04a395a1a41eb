-- The key of each row that was accepted outside of a period, over all of the table's history.
-- Without FINAL, which would cost much: a row that it drops is found here, and settled with the others.
SELECT reinterpretAsUInt64(identity_hash) AS identity_key
FROM usage_events
WHERE identity_key BETWEEN {first:UInt64} AND {last:UInt64}
    AND (accepted_at < fromUnixTimestamp64Milli({from:Int64}, 'UTC')
        OR accepted_at >= fromUnixTimestamp64Milli({to:Int64}, 'UTC'))
    AND ({organization:String} = '' OR organization_id = {organization:String})
