-- Where the audit's ranges leave a gap before {end}, and records of a period may have been. Such a record
-- was decided after the range before it was inserted, and before any range behind it was. A replay writes
-- missing ranges later: one that is not older than those behind it says nothing about what follows it.
-- The windows run in two directions, so that neither computes a frame anew for each row.
SELECT covered, first_offset
FROM
(
    SELECT
        first_offset,
        max(next_offset) OVER (ORDER BY first_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS covered,
        max(decided_at) OVER (ORDER BY first_offset ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING) AS decided_after,
        min(decided_at) OVER (ORDER BY first_offset DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS decided_before
    FROM
    (
        -- A range without records is a loss that somebody accepted, whenever that was.
        SELECT
            first_offset,
            last_offset + 1 AS next_offset,
            if(records = 0, toDateTime64('2299-01-01 00:00:00', 3, 'UTC'), inserted_at) AS decided_at
        FROM ingest_batches FINAL
        WHERE topic = {topic:String}
            AND topic_epoch = {epoch:UInt16}
            AND kafka_partition = {partition:UInt16}
            AND first_offset < {end:UInt64}
        UNION ALL
        -- The end, where it is known.
        SELECT {end:UInt64}, {end:UInt64}, toDateTime64('2299-01-01 00:00:00', 3, 'UTC')
        WHERE {end:UInt64} != 18446744073709551615
    )
)
WHERE covered < first_offset
    AND decided_before >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    AND (decided_after < fromUnixTimestamp64Milli({until:Int64}, 'UTC') OR decided_after >= decided_before)
ORDER BY first_offset
