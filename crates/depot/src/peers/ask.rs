//! Questions to a peer: is it there, and has it got this?

use std::time::Duration;

use iroh::{EndpointAddr, endpoint::Connection};
use iroh_blobs::{
    ALPN,
    get::request::get_verified_size,
    protocol::{ERR_LIMIT, ERR_PERMISSION},
};
use tokio::time::timeout;

use super::{CONNECT, PeerId, Peers, SILENCE, theirs};
use crate::Hash;

/// How a peer was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Time of a way there and back.
    pub round_trip: Duration,
    /// Where it answered.
    pub at: String,
}

impl Peers {
    /// Connects to a peer, if it is a member.
    pub(super) async fn connect(&self, peer: PeerId) -> Result<Connection, String> {
        let addresses = self.members.borrow().get(&peer).cloned();
        let addresses = addresses.ok_or("is no member")?;
        let address =
            addresses.into_iter().fold(EndpointAddr::new(peer.0), EndpointAddr::with_ip_addr);
        let relays = self.relays.iter().map(|relay| relay.0.clone());
        let address = relays.fold(address, EndpointAddr::with_relay_url);
        timeout(CONNECT, self.endpoint.connect(address, ALPN))
            .await
            .map_err(|_| "does not answer".to_owned())?
            .map_err(|error| format!("cannot be reached: {error}"))
    }

    /// Looks whether a peer answers, and how fast.
    ///
    /// # Errors
    /// Why it cannot be reached, as what follows its name.
    pub async fn reach(&self, peer: PeerId) -> Result<Reached, String> {
        let connection = self.connect(peer).await?;
        let paths = connection.paths();
        let path =
            paths.iter().find(iroh::endpoint::Path::is_selected).or_else(|| paths.iter().next());
        let reached =
            path.map(|path| Reached { round_trip: path.rtt(), at: path.remote_addr().to_string() });
        connection.close(0_u32.into(), b"seen");
        reached.ok_or_else(|| "was reached and left at once".to_owned())
    }

    /// Asks whether a peer has something: it proves that by the last piece of it.
    ///
    /// # Errors
    /// Why there is no answer, as what follows its name: then nothing is known.
    pub async fn has(&self, peer: PeerId, hash: &Hash, bytes: u64) -> Result<bool, String> {
        if bytes == 0 {
            return Ok(true);
        }
        let connection = self.connect(peer).await?;
        let hash = theirs(hash);
        let answer = timeout(SILENCE, get_verified_size(&connection, &hash)).await;
        let connection_ended = connection.close_reason().is_some();
        connection.close(0_u32.into(), b"answered");
        match answer {
            Err(_) => Err(format!("said nothing for {} s", SILENCE.as_secs())),
            Ok(Ok((size, _))) => Ok(size == bytes),
            // Whoever takes this one for a stranger ends the connection, and has said nothing of it.
            Ok(Err(error)) if connection_ended => Err(format!("ended the connection: {error}")),
            Ok(Err(error)) => match error.iroh_error_code() {
                Some(code) if code == ERR_PERMISSION => Ok(false),
                Some(code) if code == ERR_LIMIT => Err("has it not yet, or is busy".to_owned()),
                _ => Err(format!("gives no answer: {error}")),
            },
        }
    }
}
