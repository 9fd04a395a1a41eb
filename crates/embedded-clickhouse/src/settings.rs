//! Which engine settings a request may set, and the ones it gets whether it wants or not.

use crate::access::Role;
use crate::config::{READER_MEMORY_BYTES_MAX, READER_SECONDS_MAX};
use crate::exception::{BAD_ARGUMENTS, Exception, READONLY};

/// Parameters of the HTTP interface that are not settings and mean nothing here: there are no sessions,
/// answers are not compressed as a whole, and nothing is buffered or sent before its turn.
const WITHOUT_EFFECT: [&str; 20] = [
    "add_http_cors_header",
    "buffer_size",
    "cancel_http_readonly_queries_on_client_close",
    "client_protocol_version",
    "close_session",
    "enable_http_compression",
    "http_headers_progress_interval_ms",
    "http_make_head_request",
    "http_response_headers",
    "http_wait_end_of_query",
    "http_write_exception_in_output_format",
    "http_zlib_compression_level",
    "log_comment",
    "quota_key",
    "send_progress_in_http_headers",
    "session_check",
    "session_id",
    "session_timeout",
    "stacktrace",
    "wait_end_of_query",
];

/// Settings that would make the engine's parser read another language than the one that is checked here.
const REFUSED: [&str; 3] = ["dialect", "implicit_select", "max_query_size"];

/// What the reader may set, besides `output_format_*`. Settings that name files, change the parser or raise
/// limits are not among them.
const READER_MAY_SET: [&str; 22] = [
    "date_time_output_format",
    "do_not_merge_across_partitions_select_final",
    "extremes",
    "final",
    "format_csv_delimiter",
    "group_by_overflow_mode",
    "join_use_nulls",
    "limit",
    "max_block_size",
    "max_bytes_to_read",
    "max_execution_time",
    "max_memory_usage",
    "max_result_bytes",
    "max_result_rows",
    "max_rows_to_read",
    "max_threads",
    "offset",
    "optimize_move_to_prewhere",
    "optimize_move_to_prewhere_if_final",
    "result_overflow_mode",
    "session_timezone",
    "use_skip_indexes_if_final",
];

/// Limits on each statement of the reader; it may set lower ones.
const READER_LIMITS: [(&str, u64); 2] =
    [("max_execution_time", READER_SECONDS_MAX), ("max_memory_usage", READER_MEMORY_BYTES_MAX)];

const NAME_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// The settings of one request, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: Vec<(String, String)>,
    read_only: bool,
}

impl Settings {
    /// Checks what a request asks for. `read_only` is for a request that may not change anything, such as a GET.
    pub fn check(
        role: Role,
        read_only: bool,
        asked: Vec<(String, String)>,
    ) -> Result<Self, Exception> {
        let mut settings =
            Self { values: Vec::new(), read_only: read_only || role == Role::Reader };
        for (name, value) in asked {
            let plain =
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !plain
                || name.is_empty()
                || name.len() > NAME_BYTES_MAX
                || value.len() > VALUE_BYTES_MAX
            {
                return Err(Exception::new(
                    BAD_ARGUMENTS,
                    "a parameter of the URL is not the name of a setting, or its value is too long",
                ));
            }
            match name.as_str() {
                name if WITHOUT_EFFECT.contains(&name) => {}
                name if REFUSED.contains(&name) => return Err(refused(name)),
                "async_insert" if value == "0" || value == "false" => {}
                "async_insert" => return Err(refused("async_insert")),
                "readonly" if value == "0" && settings.read_only => {
                    return Err(refused("readonly"));
                }
                "readonly" => settings.read_only |= value != "0",
                _ if role == Role::Reader && !reader_may_set(&name) => return Err(refused(&name)),
                _ => settings.values.push((name, value)),
            }
        }
        if role == Role::Reader {
            settings.limit();
        }
        Ok(settings)
    }

    /// The SET statement that puts a session into this state. `tag` marks the session's statements.
    pub fn statement(&self, tag: &str) -> String {
        let mut sql = format!("SET log_comment = {}", quoted(tag));
        for (name, value) in &self.values {
            sql.push_str(&format!(", {name} = {}", quoted(value)));
        }
        if self.read_only {
            // Last, because nothing can be set after it, not even by the statement itself.
            sql.push_str(", readonly = 1");
        }
        sql
    }

    pub fn read_only(&self) -> bool {
        self.read_only
    }

    fn limit(&mut self) {
        for (name, most) in READER_LIMITS {
            let asked = self
                .values
                .iter()
                .rev()
                .find(|(n, _)| n == name)
                .and_then(|(_, v)| v.parse::<u64>().ok());
            // Zero means without limit.
            let allowed = asked.filter(|&value| value > 0).map_or(most, |value| value.min(most));
            self.values.retain(|(n, _)| n != name);
            self.values.push((name.to_owned(), allowed.to_string()));
        }
    }
}

fn reader_may_set(name: &str) -> bool {
    READER_MAY_SET.contains(&name) || name.starts_with("output_format_")
}

fn refused(name: &str) -> Exception {
    Exception::new(READONLY, format_args!("Setting {name} cannot be changed here. (READONLY)"))
}

/// `text` as a string literal of ClickHouse's SQL.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(role: Role, name: &str, value: &str) -> Result<String, u32> {
        let asked = vec![(name.to_owned(), value.to_owned())];
        Settings::check(role, false, asked).map(|s| s.statement("t")).map_err(|e| e.code())
    }

    #[test]
    fn values_cannot_leave_their_quotes() {
        assert_eq!(
            check(Role::Service, "max_threads", r"1', readonly='0\"),
            Ok(r"SET log_comment = 't', max_threads = '1\', readonly=\'0\\'".to_owned())
        );
        for name in ["", "a b", "A", "a=1", "ä", "max_threads--", &"a".repeat(129)] {
            assert_eq!(check(Role::Service, name, "1"), Err(BAD_ARGUMENTS), "{name}");
        }
        assert!(check(Role::Service, &"a".repeat(128), "1").is_ok());
        assert!(check(Role::Service, "a", &"1".repeat(16 * 1024)).is_ok());
        assert_eq!(check(Role::Service, "a", &"1".repeat(16 * 1024 + 1)), Err(BAD_ARGUMENTS));
    }

    #[test]
    fn the_reader_can_only_lower_its_limits() {
        let limited = |name, value| check(Role::Reader, name, value).unwrap();
        assert!(limited("max_execution_time", "5").contains("max_execution_time = '5'"));
        assert!(limited("max_execution_time", "61").contains("max_execution_time = '60'"));
        assert!(limited("max_execution_time", "0").contains("max_execution_time = '60'"));
        assert!(limited("max_memory_usage", "x").contains("max_memory_usage = '400000000'"));
        assert!(limited("max_threads", "1").ends_with(", readonly = 1"));
    }

    #[test]
    fn settings_that_open_a_way_out_are_refused() {
        assert_eq!(check(Role::Reader, "readonly", "0"), Err(READONLY));
        assert_eq!(check(Role::Reader, "format_template_row", "/etc/passwd"), Err(READONLY));
        for role in [Role::Service, Role::Reader] {
            assert_eq!(check(role, "dialect", "prql"), Err(READONLY));
            assert_eq!(check(role, "async_insert", "1"), Err(READONLY));
            assert!(check(role, "async_insert", "0").is_ok());
            assert!(check(role, "wait_end_of_query", "1").is_ok());
        }
        assert!(check(Role::Service, "insert_deduplication_token", "x").is_ok());
    }

    #[test]
    fn a_get_changes_nothing() {
        let settings = Settings::check(Role::Service, true, vec![]).unwrap();
        assert!(settings.read_only() && settings.statement("t").ends_with("readonly = 1"));
        let off = vec![("readonly".to_owned(), "0".to_owned())];
        assert!(Settings::check(Role::Service, true, off).is_err());
    }
}
