//! An INSERT below one block is stored as a whole or not at all.

use crate::support::{Database, database};
use clickhouse::Row;
use serde::Serialize;

#[derive(Row, Serialize)]
struct Number {
    id: u64,
}

const ROWS: u64 = 100_000;

async fn numbers_table(database: &Database) {
    database.ok("CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id").await;
}

async fn stored(database: &Database) -> String {
    database.ok("SELECT count(), uniqExact(_part) FROM t").await
}

#[tokio::test]
async fn a_full_batch_is_one_part() {
    let Some(database) = database().await else { return };
    for (format, data) in [
        ("RowBinary", (0..ROWS).flat_map(u64::to_le_bytes).collect::<Vec<u8>>()),
        (
            "JSONEachRow",
            (0..ROWS).flat_map(|id| format!("{{\"id\":{id}}}\n").into_bytes()).collect(),
        ),
        ("TSV", (0..ROWS).flat_map(|id| format!("{id}\n").into_bytes()).collect()),
        ("CSV", (0..ROWS).flat_map(|id| format!("\"{id}\"\n").into_bytes()).collect()),
        ("Values", (0..ROWS).flat_map(|id| format!("({id}),").into_bytes()).collect()),
    ] {
        database.ok("DROP TABLE IF EXISTS t").await;
        numbers_table(&database).await;
        let sql = format!("INSERT INTO t FORMAT {format}");
        let answer = database.post(&[("query", &sql), ("database", &database.name)], data).await;
        assert_eq!(answer.status, 200, "{format}: {}", answer.text);
        assert!(
            answer.header("X-ClickHouse-Summary").contains("\"written_rows\":\"100000\""),
            "{format}"
        );
        assert_eq!(stored(&database).await, format!("{ROWS}\t1\n"), "{format}");
    }
}

#[tokio::test]
async fn a_batch_with_a_bad_end_stores_nothing() {
    let Some(database) = database().await else { return };
    numbers_table(&database).await;
    let mut cut: Vec<u8> = (0..ROWS).flat_map(u64::to_le_bytes).collect();
    cut.pop();
    let broken: Vec<u8> = (0..ROWS)
        .map(|id| {
            if id == ROWS - 1 {
                "{\"id\":\"x\"}\n".to_owned()
            } else {
                format!("{{\"id\":{id}}}\n")
            }
        })
        .flat_map(String::into_bytes)
        .collect();
    for (format, data) in [("RowBinary", cut), ("JSONEachRow", broken)] {
        let sql = format!("INSERT INTO t FORMAT {format}");
        let answer = database.post(&[("query", &sql), ("database", &database.name)], data).await;
        assert!(answer.status >= 400, "{format}");
        assert_eq!(stored(&database).await, "0\t0\n", "{format}");
    }
}

#[tokio::test]
async fn an_insert_that_the_client_breaks_off_stores_nothing() {
    let Some(database) = database().await else { return };
    numbers_table(&database).await;
    let mut insert = database.client().with_validation(false).insert::<Number>("t").await.unwrap();
    for id in 0..ROWS {
        insert.write(&Number { id }).await.unwrap();
    }
    let open = format!(
        "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO%' AND current_database = '{}'",
        database.name
    );
    database.eventually(&open, "1\n").await;
    drop(insert);
    database.eventually(&open, "0\n").await;
    assert_eq!(stored(&database).await, "0\t0\n");
}

#[tokio::test]
async fn a_damaged_compressed_block_stores_nothing() {
    let Some(database) = database().await else { return };
    numbers_table(&database).await;
    let rows: Vec<u8> = (0..ROWS).flat_map(u64::to_le_bytes).collect();
    let block = embedded_clickhouse::framing::encode_block(&rows);
    let insert = async |data: Vec<u8>| {
        let parameters = [
            ("query", "INSERT INTO t FORMAT RowBinary"),
            ("database", &database.name),
            ("decompress", "1"),
        ];
        database.post(&parameters, data).await.code()
    };
    let mut flipped = block.clone();
    flipped[1000] ^= 1;
    assert_eq!(insert(flipped).await, 40);
    assert_eq!(insert(block[..block.len() - 1].to_vec()).await, 271);
    assert_eq!(stored(&database).await, "0\t0\n");
    assert_eq!(insert(block).await, 0);
    assert_eq!(stored(&database).await, format!("{ROWS}\t1\n"));
}
