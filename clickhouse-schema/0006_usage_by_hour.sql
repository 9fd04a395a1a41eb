-- Usage per customer, subscription, metric and hour, for charts and checks.
--
-- Hours are UTC. Days of time zones that are off by half an hour can't be added up from them; bill
-- those from billable_events.
CREATE VIEW IF NOT EXISTS usage_by_hour {on_cluster} AS
SELECT
    organization_id,
    external_customer_id,
    external_subscription_id,
    code,
    toStartOfInterval(timestamp, toIntervalHour(1)) AS hour,
    count() AS events,
    count(value) AS events_with_value,
    sum(ifNull(value, toDecimal256(0, 12))) AS value_sum,
    min(value) AS value_min,
    max(value) AS value_max
FROM billable_events
GROUP BY organization_id, external_customer_id, external_subscription_id, code, hour
-- Without it hours before 1970 and after 2106 are put into others.
SETTINGS enable_extended_results_for_datetime_functions = 1
