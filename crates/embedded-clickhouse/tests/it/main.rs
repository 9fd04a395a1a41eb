//! What clients of a ClickHouse server rely on, asked of the facade by real clients.

#[cfg(test)]
mod access;
#[cfg(test)]
mod atomicity;
#[cfg(test)]
mod cancellation;
#[cfg(test)]
mod failed_write;
#[cfg(test)]
mod formats;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod process;
#[cfg(test)]
mod rust_client;
#[cfg(test)]
mod statements;
#[cfg(test)]
mod support;
