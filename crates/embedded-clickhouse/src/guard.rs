//! Decides before execution whether a statement may run, by the engine's own parser.

use crate::access::Role;
use crate::config::SQL_BYTES_MAX;
use crate::engine::Wanted;
use crate::exception::{
    ACCESS_DENIED, Exception, QUERY_NOT_ALLOWED, READONLY, SYNTAX_ERROR, TOO_LARGE,
};
use crate::ffi::{Chunk, Classification, Connection, StatementClass};
use crate::sql;

/// Checks `sql` on the session that is to run it. Text that the engine would take for nothing at all, and answer
/// with success, is an error here.
pub fn admit(
    session: &mut Connection,
    wanted: &Wanted,
    sql: &[u8],
) -> Result<StatementClass, Exception> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(too_long());
    }
    let class = decide(session.classify(sql), wanted.settings.read_only()).map_err(|refusal| {
        // The engine says where the error is; the refusal stands in any case.
        let detail =
            (refusal.code() == SYNTAX_ERROR).then(|| canonical(session, sql).err()).flatten();
        detail.unwrap_or(refusal)
    })?;
    if wanted.role == Role::Reader || mentions_file(sql) {
        refuse_file(session, sql)?;
    }
    Ok(class)
}

/// A statement longer than the limit.
pub fn too_long() -> Exception {
    Exception::new(TOO_LARGE, format_args!("the statement is longer than {SQL_BYTES_MAX} bytes"))
}

/// The rule on what the parser found.
fn decide(found: Classification, read_only: bool) -> Result<StatementClass, Exception> {
    match found {
        Classification { statements: 0, .. } => Err(Exception::new(
            SYNTAX_ERROR,
            "Syntax error: the text is not a statement. (SYNTAX_ERROR)",
        )),
        Classification { statements: 1, class: StatementClass::ReadOnly } => {
            Ok(StatementClass::ReadOnly)
        }
        Classification { statements: 1, class: StatementClass::Mutating } if read_only => {
            Err(Exception::new(READONLY, "Cannot execute query in readonly mode. (READONLY)"))
        }
        Classification { statements: 1, class: StatementClass::Mutating } => {
            Ok(StatementClass::Mutating)
        }
        Classification { statements: 1, class: StatementClass::Unknown } => Err(Exception::new(
            SYNTAX_ERROR,
            "Syntax error: the statement is not understood. (SYNTAX_ERROR)",
        )),
        Classification {
            statements: 1,
            class: StatementClass::Global | StatementClass::Control,
        } => Err(Exception::new(
            QUERY_NOT_ALLOWED,
            "statements that change the session, files, users or the engine itself are not allowed here; \
             settings go into the URL. (QUERY_NOT_ALLOWED)",
        )),
        Classification { .. } => {
            Err(Exception::new(SYNTAX_ERROR, "Multi-statements are not allowed. (SYNTAX_ERROR)"))
        }
    }
}

fn mentions_file(sql: &[u8]) -> bool {
    sql.windows(4).any(|word| word == b"file")
}

/// No grant covers the function `file`, so its name is looked for in the engine's own spelling of the statement,
/// which has no comments, no escapes in plain names and one kind of quotes.
fn refuse_file(session: &mut Connection, sql: &[u8]) -> Result<(), Exception> {
    let canonical = canonical(session, sql)?;
    if sql::names_file(canonical.bytes()) {
        return Err(Exception::new(
            ACCESS_DENIED,
            "the function file is not allowed here. (ACCESS_DENIED)",
        ));
    }
    Ok(())
}

/// The statement as the engine itself would write it, or what is wrong with it.
fn canonical(session: &mut Connection, sql: &[u8]) -> Result<Chunk, Exception> {
    let text = std::str::from_utf8(sql).map_err(|_| {
        Exception::new(SYNTAX_ERROR, "Syntax error: the statement is not UTF-8. (SYNTAX_ERROR)")
    })?;
    let parameter = [("statement".to_owned(), escaped(text))];
    session
        .query(b"SELECT formatQuerySingleLine({statement:String})", "TSVRaw", &parameter)
        .map_err(|error| Exception::from_engine(&error))
}

/// A string as the value of a parameter: a field of TSV.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\t', "\\t")
        .replace('\n', "\\n")
        .replace('\r', "\\r")
        .replace('\0', "\\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(statements: u32, class: StatementClass, read_only: bool) -> Option<u32> {
        decide(Classification { statements, class }, read_only).err().map(|e| e.code())
    }

    #[test]
    fn exactly_one_statement_of_a_known_kind_runs() {
        use StatementClass::{Control, Global, Mutating, ReadOnly, Unknown};
        assert_eq!(code(1, ReadOnly, true), None);
        assert_eq!(code(1, ReadOnly, false), None);
        assert_eq!(code(1, Mutating, false), None);
        assert_eq!(code(1, Mutating, true), Some(READONLY));
        for class in [Global, Control] {
            assert_eq!(code(1, class, false), Some(QUERY_NOT_ALLOWED));
        }
        assert_eq!(code(1, Unknown, false), Some(SYNTAX_ERROR));
        for class in [ReadOnly, Mutating, Global, Control, Unknown] {
            assert_eq!(code(0, class, false), Some(SYNTAX_ERROR));
            assert_eq!(code(2, class, false), Some(SYNTAX_ERROR));
        }
    }
}
