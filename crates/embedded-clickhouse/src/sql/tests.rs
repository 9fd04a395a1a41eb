use super::*;

fn insert_of(text: &str) -> Option<(&str, String, &str)> {
    match statement(text.as_bytes()) {
        Statement::Insert { head, format, data } => Some((&text[..head], format, &text[data..])),
        _ => None,
    }
}

fn format_of(text: &str) -> OutputFormat {
    match statement(text.as_bytes()) {
        Statement::Other { format, .. } => format,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_insert_is_cut_where_its_data_begins() {
    let cases = [
        ("INSERT INTO t FORMAT RowBinary", ("INSERT INTO t ", "RowBinary", "")),
        ("insert into t(a, b) values (1, 'x')", ("insert into t(a, b) ", "Values", " (1, 'x')")),
        ("INSERT INTO t FORMAT TSV\n1\n2\n", ("INSERT INTO t ", "TSV", "1\n2\n")),
        ("INSERT INTO t FORMAT TSV;\r\n1\n", ("INSERT INTO t ", "TSV", "1\n")),
        (
            "INSERT INTO t FORMAT JSONEachRow {\"a\":1}",
            ("INSERT INTO t ", "JSONEachRow", "{\"a\":1}"),
        ),
        ("INSERT INTO format FORMAT CSV 1", ("INSERT INTO format ", "CSV", "1")),
        ("INSERT INTO d.values VALUES (1)", ("INSERT INTO d.values ", "Values", " (1)")),
        (
            "/* FORMAT a */ INSERT INTO `FORMAT` (`VALUES`) -- VALUES\nSETTINGS x='FORMAT y' FORMAT TSV\n\n",
            (
                "/* FORMAT a */ INSERT INTO `FORMAT` (`VALUES`) -- VALUES\nSETTINGS x='FORMAT y' ",
                "TSV",
                "\n",
            ),
        ),
    ];
    for (text, (head, format, data)) in cases {
        assert_eq!(insert_of(text), Some((head, format.to_owned(), data)), "{text}");
    }
}

#[test]
fn an_insert_without_data_of_its_own_is_run_as_any_statement() {
    for text in [
        "INSERT INTO t SELECT 1 FORMAT TSV",
        "INSERT INTO t (SELECT 1)",
        "INSERT INTO t",
        "INSERT INTO t WITH 1 AS x SELECT x",
    ] {
        assert_eq!(insert_of(text), None, "{text}");
    }
    assert_eq!(
        statement(b"INSERT INTO t FROM /**/ INFILE '/x' FORMAT TSV"),
        Statement::InsertFromFile
    );
}

#[test]
fn the_format_of_a_result_is_found_at_the_end_only() {
    let named = |name: &str| OutputFormat::Named(name.to_owned());
    assert_eq!(format_of("SELECT 1"), OutputFormat::Default);
    assert_eq!(format_of("SELECT 1 FORMAT JSON"), named("JSON"));
    assert_eq!(format_of("select 1 settings a=1 format /* x */ CSV ; -- y"), named("CSV"));
    assert_eq!(format_of("SELECT 1 FORMAT CSV SETTINGS a=1"), named("CSV"));
    assert_eq!(format_of("SELECT format('{}', x), 'FORMAT JSON' FROM t"), OutputFormat::Default);
    assert_eq!(format_of("SELECT 1 FORMAT CSV INTO OUTFILE 'x'"), OutputFormat::Unclear);
    assert_eq!(format_of("SELECT $a$ FORMAT CSV $a$"), OutputFormat::Default);
    assert_eq!(format_of("SELECT ‘ FORMAT CSV’"), OutputFormat::Default);
    assert_eq!(format_of("SELECT 1 // FORMAT CSV"), OutputFormat::Default);
    assert_eq!(format_of("SELECT 1 /* /* */ FORMAT CSV */"), OutputFormat::Default);
}

#[test]
fn reading_a_file_is_seen_in_each_spelling() {
    for text in [
        "SELECT file('/x')",
        "SELECT * APPLY(file) FROM t",
        "SELECT `file`('/x')",
        "SELECT `fi\\x6ce`('/x')",
        "SELECT \"file\" ('x')",
    ] {
        assert!(names_file(text.as_bytes()), "{text}");
    }
    for text in [
        "SELECT 'file(1)'",
        "SELECT a_file, profile FROM files",
        "SELECT `filer`, `a file`",
        "SELECT '\\'' AS file_name",
    ] {
        assert!(!names_file(text.as_bytes()), "{text}");
    }
}

#[test]
fn broken_text_ends_without_panic() {
    let text = "INSERT INTO t ‘a $x$ 'b\\' /* ` \" FORMAT \\";
    for end in 0..=text.len() {
        for start in 0..end {
            let _shape = statement(&text.as_bytes()[start..end]);
            let _found = names_file(&text.as_bytes()[start..end]);
        }
    }
}
