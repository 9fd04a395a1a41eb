//! Loopback ports for engines that are killed and come back on the same port.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below are the ports that well-known programs are configured for.
const LOWEST: u16 = 10_000;
/// Where Linux begins to take ports for outgoing connections, unless it is told otherwise.
const OUTGOING: u16 = 32_768;
const ATTEMPTS_MAX: usize = 1_000;

/// A loopback TCP port that is free at this moment, and that this process has not been given before.
///
/// It is none of those that the system takes for outgoing connections. One of these could be taken
/// while the engine is away; and a client that connects to it again and again would one day be given
/// it as its own and reach itself.
///
/// # Panics
/// When the machine has no free port.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let ports = LOWEST..first_outgoing();
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let random = RandomState::new();
    for attempt in 0..ATTEMPTS_MAX {
        // Random, because other processes choose at the same time.
        let nth = random.hash_one(attempt) % u64::from(ports.end - ports.start);
        let port = ports.start + u16::try_from(nth).expect("it is less than the number of ports");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && given.insert(port) {
            return port;
        }
    }
    panic!("none of {ATTEMPTS_MAX} loopback ports in {ports:?} is free");
}

fn first_outgoing() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let first = range.ok().and_then(|range| range.split_whitespace().next()?.parse().ok());
    // A machine may leave no ports below. Then an accident is better than nothing.
    first.filter(|first| *first >= LOWEST + 2_000).unwrap_or(OUTGOING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_or_can_become_a_client_s_own() {
        let ports: BTreeSet<_> = (0..200).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|port| (LOWEST..first_outgoing()).contains(port)), "{ports:?}");
    }
}
