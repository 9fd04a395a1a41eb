-- Without FINAL, so that two appliers that recorded different texts of one version are both seen.
SELECT DISTINCT version, name, checksum
FROM schema_migrations
ORDER BY version, checksum
