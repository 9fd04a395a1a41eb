//! Opens the listening socket, and tells others where it is.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;

/// Binds `address`, and writes the bound one into `address_file` when given, whole or not at all.
pub async fn bind(address: SocketAddr, address_file: Option<&Path>) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    if let Some(path) = address_file {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        tokio::fs::write(&unfinished, format!("{bound}\n")).await?;
        tokio::fs::rename(&unfinished, path).await?;
    }
    tracing::info!(address = %bound, "listening");
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_names_the_bound_address() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("address");
        let listener = bind("127.0.0.1:0".parse().unwrap(), Some(&file)).await.unwrap();
        let written: SocketAddr = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert_eq!(written, listener.local_addr().unwrap());
        assert_ne!(written.port(), 0);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }
}
