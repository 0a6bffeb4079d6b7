//! The right to write: a lease with an epoch that every fact of this manager carries.

use std::time::Duration;

use courier::{Courier, Fence, Lease, LeaseError};
use tracing::{error, info, warn};
use warden::Clock;

/// Name of the lease.
const NAME: &str = "leader";
/// Time for which it is granted; a manager of another machine may take it after that.
const TTL: Duration = Duration::from_secs(30);

/// Takes the lease under the name of this installation; a lease that an earlier life of it left is
/// taken over, with a new epoch.
pub async fn take(log: &Courier, node: &str, clock: &Clock) -> Result<Lease, LeaseError> {
    log.acquire(NAME, node, TTL, clock.now_ms()).await
}

/// What proves it, for appends.
pub fn fence(lease: &Lease) -> Fence {
    Fence { lease: lease.name.clone(), epoch: lease.epoch }
}

/// Prolongs the lease for ever; returns when somebody else has it.
pub async fn keep(log: Courier, mut lease: Lease, clock: Clock) {
    loop {
        tokio::time::sleep(TTL / 3).await;
        let now = clock.now_ms();
        match log.renew(&lease, TTL, now).await {
            Ok(renewed) => lease = renewed,
            Err(LeaseError::Failed(failed)) => warn!(error = %failed, "the lease is not prolonged"),
            Err(_) => match log.lease(NAME, now).await {
                // The machine slept longer than the lease lasts. Nobody took it: the epoch is still
                // ours, and the lock of the data directory keeps it so on this machine.
                Ok(None) => info!(epoch = lease.epoch, "the lease ran out and nobody took it"),
                Ok(Some(held)) if held.epoch == lease.epoch => {}
                Ok(Some(held)) => {
                    error!(
                        by = held.holder,
                        epoch = held.epoch,
                        "the lease went to another manager"
                    );
                    return;
                }
                Err(failed) => warn!(error = %failed, "the lease cannot be read"),
            },
        }
    }
}
