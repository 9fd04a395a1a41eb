//! The C interface of libchdb, loaded at run time and wrapped so that nothing outside this file is unsafe.
//!
//! The signatures follow `chdb.h` of release 26.7. A connection runs one statement at a time, which the
//! wrappers enforce with `&mut`; different connections may be used from different threads at once.

#![expect(unsafe_code, reason = "libchdb is a C library; each block states why it is sound")]

mod handles;

pub use handles::{Chunk, Connection, InsertStream, Parameter, SelectStream};

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;

/// A pointer that only the library looks into.
type Handle = *mut c_void;
/// What `chdb_connect` returns: a pointer to the connection's handle.
type ConnectionPointer = *mut Handle;

/// The library cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot load {path}")]
    Open { path: String, source: libloading::Error },
    #[error("{path} lacks the function {name}; release 26.7 of libchdb is needed")]
    Symbol { path: String, name: &'static str, source: libloading::Error },
}

/// No connection: the library says why on standard error only.
#[derive(Debug, thiserror::Error)]
#[error("the engine refused a connection; its reason is on standard error")]
pub struct ConnectError;

/// What the engine's parser found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// Executable statements in the text; zero when it does not parse.
    pub statements: u32,
    pub class: StatementClass,
}

/// What a statement does to state that outlives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementClass {
    ReadOnly,
    /// Changes something inside a database.
    Mutating,
    /// Changes something beside the databases: users, functions, named collections, system tables.
    Global,
    /// Session state, files, administration.
    Control,
    /// Does not parse, or is not known to the engine's classifier.
    Unknown,
}

/// `chdb_query_analysis_v1` of chdb.h.
#[repr(C)]
struct Analysis {
    struct_size: u32,
    statement_count: u32,
    flags: u32,
    query_class: u32,
}

macro_rules! functions {
    ($($name:ident: $signature:ty,)*) => {
        struct Functions { $($name: $signature,)* }

        impl Functions {
            /// # Safety
            /// `library` must be a libchdb whose functions have the signatures below.
            unsafe fn load(library: &libloading::Library, path: &str) -> Result<Self, LoadError> {
                // SAFETY: the caller vouches for the signatures; the pointers outlive every use because
                // `Library::load` never unloads the library.
                unsafe {
                    Ok(Self { $($name: *library
                        .get::<$signature>(concat!(stringify!($name), "\0").as_bytes())
                        .map_err(|source| LoadError::Symbol { path: path.to_owned(), name: stringify!($name), source })?,)* })
                }
            }
        }
    };
}

/// A statement and a format, each as pointer and length.
type Execute = unsafe extern "C" fn(
    Handle,
    *const u8,
    usize,
    *const u8,
    usize,
    *const *const u8,
    *const usize,
    *const *const u8,
    *const usize,
    usize,
) -> Handle;
type Number = unsafe extern "C" fn(Handle) -> u64;
type Text = unsafe extern "C" fn(Handle) -> *const c_char;

functions! {
    chdb_version: unsafe extern "C" fn() -> *const c_char,
    chdb_set_signal_handlers_enabled: unsafe extern "C" fn(c_int),
    chdb_connect: unsafe extern "C" fn(c_int, *mut *mut c_char) -> ConnectionPointer,
    chdb_close_conn: unsafe extern "C" fn(ConnectionPointer),
    chdb_query_with_params_n: Execute,
    chdb_stream_query_with_params_n: Execute,
    chdb_stream_insert_with_params_n: Execute,
    chdb_stream_fetch_result: unsafe extern "C" fn(Handle, Handle) -> Handle,
    chdb_stream_cancel_query: unsafe extern "C" fn(Handle, Handle),
    chdb_destroy_query_result: unsafe extern "C" fn(Handle),
    chdb_stream_append: unsafe extern "C" fn(Handle, *const c_void, usize) -> c_int,
    chdb_stream_done: unsafe extern "C" fn(Handle) -> Handle,
    chdb_stream_cancel_insert: unsafe extern "C" fn(Handle),
    chdb_stream_insert_error: Text,
    chdb_destroy_insert_stream: unsafe extern "C" fn(Handle),
    chdb_result_buffer: unsafe extern "C" fn(Handle) -> *const u8,
    chdb_result_length: unsafe extern "C" fn(Handle) -> usize,
    chdb_result_rows_read: Number,
    chdb_result_storage_rows_read: Number,
    chdb_result_storage_bytes_read: Number,
    chdb_result_rows_written: Number,
    chdb_result_bytes_written: Number,
    chdb_result_error: Text,
    chdb_classify_query_n: unsafe extern "C" fn(Handle, *const u8, usize, *const u8, usize, *mut Analysis) -> c_int,
}

/// The loaded library. There is one per process and it is never unloaded: its threads outlive every connection.
pub struct Library {
    functions: Functions,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

impl Library {
    /// Loads libchdb from `path` and keeps it from installing signal handlers, which are the process's own.
    pub fn load(path: &Path) -> Result<&'static Self, LoadError> {
        let shown = path.display().to_string();
        // SAFETY: loading runs the library's initializers. The file is the one the operator named or the
        // one whose checksum was verified at download, so it is trusted as this program itself is.
        let library = unsafe { libloading::Library::new(path) }
            .map_err(|source| LoadError::Open { path: shown.clone(), source })?;
        // SAFETY: the signatures are those of chdb.h; a library without one of the names is refused.
        let functions = unsafe { Functions::load(&library, &shown) }?;
        std::mem::forget(library);
        // SAFETY: may be called at any time before the first connection.
        unsafe { (functions.chdb_set_signal_handlers_enabled)(0) };
        Ok(Box::leak(Box::new(Self { functions })))
    }

    /// The library's release, such as `26.7.3`.
    pub fn version(&self) -> String {
        // SAFETY: the function takes nothing and returns a static string.
        unsafe { text((self.functions.chdb_version)()) }.unwrap_or_default()
    }

    /// Opens a connection; `arguments` are those of `clickhouse local`, such as `--path=/data`.
    /// The first connection of the process boots the engine.
    pub fn connect(&'static self, arguments: &[String]) -> Result<Connection, ConnectError> {
        let owned: Vec<CString> = std::iter::once("clickhouse")
            .chain(arguments.iter().map(String::as_str))
            .map(CString::new)
            .collect::<Result<_, _>>()
            .map_err(|_| ConnectError)?;
        let mut pointers: Vec<*mut c_char> =
            owned.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).map_err(|_| ConnectError)?;
        // SAFETY: `pointers` holds `count` NUL-terminated strings, which the library copies and does not write.
        let pointer = unsafe { (self.functions.chdb_connect)(count, pointers.as_mut_ptr()) };
        Connection::from_pointer(self, pointer).ok_or(ConnectError)
    }
}

/// Ends the process at once, without running the destructors of the library, whose threads still live.
pub fn exit_at_once(code: u8) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    // SAFETY: `_exit` is async-signal-safe and does not return; everything durable was closed by the caller.
    unsafe { _exit(c_int::from(code)) }
}

/// # Safety
/// `pointer` must be null or a NUL-terminated string that lives for the call.
unsafe fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: not null, and by contract a NUL-terminated string.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}
