INSERT INTO schema_migrations
(
    version,
    name,
    checksum
)
FORMAT RowBinary
