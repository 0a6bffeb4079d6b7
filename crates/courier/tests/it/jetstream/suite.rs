//! The engine on `JetStream` passes the suite of all engines, on a single server.

use courier::conformance::{Fixture, Violation};
use courier::{Answer, Courier};

use super::Servers;

struct OnServer {
    /// Before the server: it has something to say to it.
    log: Option<Courier>,
    servers: Servers,
}

impl OnServer {
    async fn new() -> Option<Self> {
        let servers = Servers::start(1)?;
        let log = Some(servers.open("node").await);
        Some(Self { log, servers })
    }
}

impl Fixture for OnServer {
    fn courier(&self) -> Courier {
        self.log.clone().unwrap()
    }

    fn reopen(&mut self) -> Answer<'_, Result<(), Violation>> {
        Box::pin(async {
            self.log = None;
            self.log = Some(self.servers.open("node").await);
            Ok(())
        })
    }
}

courier::conformance_suite!(match OnServer::new().await {
    Some(fixture) => fixture,
    None => return Ok(()),
});
