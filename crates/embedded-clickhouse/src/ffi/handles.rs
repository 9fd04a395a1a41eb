//! Connections, results and streams: each owns a handle of the library and releases it when dropped.

use super::{
    Analysis, Classification, ConnectionPointer, Execute, Functions, Handle, Library,
    StatementClass, text,
};
use std::fmt;

/// A name and a value of a query parameter; the value is in the escaped form of a TSV field.
pub type Parameter = (String, String);

/// A session of the engine.
pub struct Connection {
    library: &'static Library,
    pointer: ConnectionPointer,
}

// SAFETY: a connection is not bound to the thread that made it; `&mut` keeps its use to one thread at a time.
unsafe impl Send for Connection {}

impl Connection {
    pub(super) fn from_pointer(
        library: &'static Library,
        pointer: ConnectionPointer,
    ) -> Option<Self> {
        // SAFETY: a pointer that is not null points to the connection's handle.
        let open = !pointer.is_null() && !unsafe { *pointer }.is_null();
        open.then_some(Self { library, pointer })
    }

    /// Runs one statement to its end.
    pub fn query(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Result<Chunk, String> {
        let run = self.functions().chdb_query_with_params_n;
        Chunk::from_handle(self.library, self.execute(run, sql, format, parameters))
    }

    /// Starts a SELECT whose result is fetched in chunks.
    pub fn select(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Result<SelectStream<'_>, String> {
        let run = self.functions().chdb_stream_query_with_params_n;
        let handle = self.execute(run, sql, format, parameters);
        let stream =
            SelectStream { result: Chunk::from_handle(self.library, handle)?, connection: self };
        Ok(stream)
    }

    /// Starts an INSERT without FORMAT clause, whose data is appended in pieces.
    pub fn insert(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Result<InsertStream<'_>, String> {
        let run = self.functions().chdb_stream_insert_with_params_n;
        let handle = self.execute(run, sql, format, parameters);
        let stream = InsertStream { connection: self, handle, finished: false };
        match stream.error() {
            None => Ok(stream),
            Some(error) => Err(error),
        }
    }

    /// What the engine's parser makes of `sql`, without running it.
    pub fn classify(&mut self, sql: &[u8]) -> Classification {
        let size = u32::try_from(size_of::<Analysis>()).expect("16 bytes");
        let mut analysis =
            Analysis { struct_size: size, statement_count: 0, flags: 0, query_class: u32::MAX };
        // SAFETY: the text is given with its length, the database name may be null, and `analysis` says its size.
        let failed = unsafe {
            (self.functions().chdb_classify_query_n)(
                self.handle(),
                sql.as_ptr(),
                sql.len(),
                std::ptr::null(),
                0,
                &raw mut analysis,
            )
        };
        let class = match (failed, analysis.query_class) {
            (0, 0) => StatementClass::ReadOnly,
            (0, 1) => StatementClass::Mutating,
            (0, 2) => StatementClass::Global,
            (0, 3) => StatementClass::Control,
            _ => StatementClass::Unknown,
        };
        Classification { statements: analysis.statement_count, class }
    }

    fn execute(
        &mut self,
        run: Execute,
        sql: &[u8],
        format: &str,
        parameters: &[Parameter],
    ) -> Handle {
        let pointers = |pick: fn(&Parameter) -> &String| -> (Vec<*const u8>, Vec<usize>) {
            parameters.iter().map(pick).map(|text| (text.as_ptr(), text.len())).unzip()
        };
        let (names, name_lengths) = pointers(|p| &p.0);
        let (values, value_lengths) = pointers(|p| &p.1);
        // SAFETY: every text is given with its length and outlives the call, which copies what it keeps;
        // `&mut self` keeps the connection to this one statement.
        unsafe {
            run(
                self.handle(),
                sql.as_ptr(),
                sql.len(),
                format.as_ptr(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        }
    }

    fn functions(&self) -> &'static Functions {
        &self.library.functions
    }

    fn handle(&self) -> Handle {
        // SAFETY: `pointer` was checked in `from_pointer` and stays valid until `drop`.
        unsafe { *self.pointer }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: results and streams of this connection borrow it or are independent of it, so none is in use.
        unsafe { (self.functions().chdb_close_conn)(self.pointer) };
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// A result, or one chunk of a streamed one.
pub struct Chunk {
    library: &'static Library,
    handle: Handle,
}

impl Chunk {
    fn from_handle(library: &'static Library, handle: Handle) -> Result<Self, String> {
        if handle.is_null() {
            return Err("Code: 1002. DB::Exception: the engine returned no result".to_owned());
        }
        let chunk = Self { library, handle };
        // SAFETY: the handle is a live result; the message lives as long as it.
        match unsafe { text((library.functions.chdb_result_error)(handle)) } {
            Some(error) if !error.is_empty() => Err(error),
            _ => Ok(chunk),
        }
    }

    /// The bytes in the format that was asked for.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the handle is a live result; buffer and length describe memory that it owns and never changes.
        unsafe {
            let pointer = (self.library.functions.chdb_result_buffer)(self.handle);
            let length = (self.library.functions.chdb_result_length)(self.handle);
            if pointer.is_null() { &[] } else { std::slice::from_raw_parts(pointer, length) }
        }
    }

    /// Rows in this result.
    pub fn rows(&self) -> u64 {
        // SAFETY: the handle is a live result.
        unsafe { (self.library.functions.chdb_result_rows_read)(self.handle) }
    }

    /// Rows and bytes read from tables.
    pub fn read(&self) -> (u64, u64) {
        let functions = &self.library.functions;
        // SAFETY: the handle is a live result.
        unsafe {
            (
                (functions.chdb_result_storage_rows_read)(self.handle),
                (functions.chdb_result_storage_bytes_read)(self.handle),
            )
        }
    }

    /// Rows and bytes written to tables, those of materialized views included.
    pub fn written(&self) -> (u64, u64) {
        let functions = &self.library.functions;
        // SAFETY: the handle is a live result.
        unsafe {
            (
                (functions.chdb_result_rows_written)(self.handle),
                (functions.chdb_result_bytes_written)(self.handle),
            )
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the handle is live and nothing borrows from it any more.
        unsafe { (self.library.functions.chdb_destroy_query_result)(self.handle) };
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk").field("rows", &self.rows()).finish_non_exhaustive()
    }
}

/// A SELECT in progress. Each chunk is a complete document of its format.
#[derive(Debug)]
pub struct SelectStream<'a> {
    connection: &'a mut Connection,
    result: Chunk,
}

impl SelectStream<'_> {
    /// The next chunk, or `None` at the end.
    pub fn fetch(&mut self) -> Result<Option<Chunk>, String> {
        let functions = self.connection.functions();
        // SAFETY: both handles are live, and `&mut self` keeps fetches of one stream apart.
        let handle = unsafe {
            (functions.chdb_stream_fetch_result)(self.connection.handle(), self.result.handle)
        };
        let chunk = Chunk::from_handle(self.connection.library, handle)?;
        let ended = chunk.bytes().is_empty() && chunk.rows() == 0;
        Ok((!ended).then_some(chunk))
    }

    /// Stops the query on the engine's side.
    pub fn cancel(self) {
        let functions = self.connection.functions();
        // SAFETY: both handles are live, and no fetch is running because `self` is owned.
        unsafe {
            (functions.chdb_stream_cancel_query)(self.connection.handle(), self.result.handle);
        }
    }
}

/// An INSERT in progress. Dropped before [`InsertStream::finish`], it is cancelled.
pub struct InsertStream<'a> {
    connection: &'a mut Connection,
    handle: Handle,
    finished: bool,
}

impl InsertStream<'_> {
    /// Hands over the next piece of the data, which may end anywhere. May block.
    pub fn append(&mut self, data: &[u8]) -> Result<(), String> {
        let functions = self.connection.functions();
        // SAFETY: the handle is live, and the data is given with its length and copied.
        let failed = unsafe {
            (functions.chdb_stream_append)(self.handle, data.as_ptr().cast(), data.len())
        };
        if failed == 0 {
            return Ok(());
        }
        Err(self
            .error()
            .unwrap_or_else(|| "Code: 1002. DB::Exception: the insert ended early".to_owned()))
    }

    /// Ends the data and commits it. The chunk says what was written.
    pub fn finish(mut self) -> Result<Chunk, String> {
        self.finished = true;
        let functions = self.connection.functions();
        // SAFETY: the handle is live and is not appended to again.
        let handle = unsafe { (functions.chdb_stream_done)(self.handle) };
        Chunk::from_handle(self.connection.library, handle)
    }

    fn error(&self) -> Option<String> {
        // SAFETY: the handle is live and owns the message.
        unsafe { text((self.connection.functions().chdb_stream_insert_error)(self.handle)) }
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        let functions = self.connection.functions();
        // SAFETY: the handle is live; an insert that was not finished is cancelled before it is released.
        unsafe {
            if !self.finished {
                (functions.chdb_stream_cancel_insert)(self.handle);
            }
            (functions.chdb_destroy_insert_stream)(self.handle);
        }
    }
}

impl fmt::Debug for InsertStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsertStream").field("finished", &self.finished).finish_non_exhaustive()
    }
}
