//! Who may come into a cluster: invitations, the door where newcomers ask, and putting out.
//!
//! All of it happens on the node that has the keys of the cluster. Whether an invitation was used
//! already stands in the log, so it can be used once whoever asks, and by whatever manager it is answered.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use courier::jetstream::{
    self, Authority, Door, Newcomer, ROUTES, Site, Ticket, public_bytes, public_key, route,
};
use depot::{Hash, peers::Key};
use ringrift_pipeline::{
    Catalogue, CatalogueError, NodeAdmitted, NodeId, NodeInvited, NodeRemoved, Record,
};
use tokio::sync::Semaphore;
use tracing::{info, warn};
use warden::Clock;

use crate::{
    control::record_about,
    data_dir::DataDir,
    membership::{Begin, Membership, log_options},
};

/// Highest port of a server that is not alone.
const HIGHEST_PORT: u16 = u16::MAX - ROUTES;
/// The servers are told who was removed so often.
const TOLD_AGAIN: Duration = Duration::from_mins(1);
/// Time between two tries to open the door.
const AGAIN: Duration = Duration::from_secs(5);

/// The keys of the cluster that this node is of, if they are here.
fn authority(dir: &DataDir) -> anyhow::Result<Authority> {
    let path = dir.authority();
    ensure!(
        path.exists(),
        "the keys of the cluster are not here ({} is not there): ask on the node that began it with \
         `ringrift cluster init --serve`",
        path.display()
    );
    let authority = Authority::read(&path)?;
    let pass = Membership::of(dir)?.and_then(|membership| membership.pass).unwrap_or_default();
    ensure!(
        authority.signed(&pass),
        "{} holds the keys of another cluster than this node is of: move it away",
        path.display()
    );
    Ok(authority)
}

/// What a node is told of its cluster when it comes.
#[derive(Debug)]
pub struct Place {
    /// Addresses of the servers.
    pub servers: String,
    /// The log's name.
    pub log: String,
    /// What the node is wanted for.
    pub role: String,
    /// What the servers let it in for.
    pub pass: String,
}

/// Makes the keys of a new cluster, and all that the servers of its log need: the first runs here, the others
/// from the folders `cluster/servers/2` and so on. Gives where they are, and what they let this node in for. Asked again after it was cut off, it goes on.
///
/// # Errors
/// A file cannot be written, or holds something else.
pub fn found(dir: &DataDir, listen: &[SocketAddr], log: &str) -> anyhow::Result<(String, String)> {
    let wrong = listen.iter().find(|at| at.ip().is_unspecified() || at.port() == 0);
    ensure!(
        wrong.is_none(),
        "--serve {}: the other nodes need an address of this machine that they reach, and a port, e.g. \
         10.0.0.1:4222",
        wrong.map(ToString::to_string).unwrap_or_default()
    );
    ensure!(
        listen.len() < 2 || listen.iter().all(|at| at.port() <= HIGHEST_PORT),
        "--serve: servers reach each other 2000 above these ports, so {HIGHEST_PORT} is the highest"
    );
    ensure!(
        matches!(listen, [_]) || matches!(listen, [a, b, c] if a != b && b != c && a != c),
        "two stand still when one of them does, so a log has one server or three: say --serve once, or three \
         times with different addresses"
    );
    fs_err::create_dir_all(dir.cluster())?;
    let authority = if dir.authority().exists() {
        Authority::read(&dir.authority())?
    } else {
        let new = Authority::generate()?;
        new.write(&dir.authority())?;
        new
    };
    fs_err::write(dir.certificate(), authority.certificate()?)?;
    let name = hosts::identity(&dir.node())?;
    for (number, listen_there) in (1..).zip(listen) {
        let folder = if number == 1 { dir.cluster() } else { dir.other_server(number) };
        // What was copied to another machine stays as it is.
        if number == 1 || !is_furnished(&folder, listen) {
            let name = format!("{log}-{number}");
            let site = Site { name: &name, listen: *listen_there, all: listen, folder: &folder };
            authority.furnish(&site)?;
        }
    }
    let key = Key::of_file(&dir.key())?;
    let servers: Vec<String> = listen.iter().map(|at| format!("tls://{at}")).collect();
    Ok((servers.join(","), authority.pass(&public_key(key.secret())?, &name, log)?))
}

/// Whether a server's folder is complete and for these addresses.
fn is_furnished(folder: &Path, all: &[SocketAddr]) -> bool {
    let config = fs_err::read_to_string(folder.join("server.conf")).unwrap_or_default();
    let is_named = |at: &SocketAddr| config.contains(&format!("{}\"", route(*at)));
    config.ends_with("}\n") && all.iter().all(is_named)
}

/// Asks to be let in with a ticket.
///
/// # Errors
/// It is no ticket, or nobody lets this machine in.
pub async fn enter(dir: &DataDir, ticket: &str) -> anyhow::Result<Place> {
    let ticket: Ticket = ticket.parse()?;
    fs_err::create_dir_all(dir.cluster())?;
    let key = Key::of_file(&dir.key())?;
    let name = hosts::identity(&dir.node())?;
    // Known by their certificate only once they let us in.
    let certificate = dir.certificate().with_extension("new");
    let pass = ticket.enter(key.secret(), &name, &certificate).await?;
    fs_err::rename(certificate, dir.certificate())?;
    Ok(Place { servers: ticket.servers, log: ticket.log, role: ticket.role, pass })
}

/// Makes a ticket for one machine, and records that it was made.
///
/// # Errors
/// The keys of the cluster are not here, or the log is out of reach.
pub async fn invite(
    catalogue: &Catalogue,
    dir: &DataDir,
    by: &NodeId,
    role: &str,
    lasts: Duration,
    now_ms: i64,
) -> anyhow::Result<String> {
    let authority = authority(dir)?;
    let membership = Membership::of(dir)?.context("this node is of no cluster")?;
    let expires_ms = now_ms.saturating_add(i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX));
    let (invitation, ticket) =
        Ticket::make(&authority, &membership.servers, &membership.log, role, expires_ms)?;
    let invited = NodeInvited { invitation, role: role.to_owned(), expires_ms, by: by.clone() };
    catalogue.record(vec![Record::first(invited)], now_ms).await?;
    Ok(ticket.to_string())
}

/// Puts a node out: from now on the servers refuse its keys, and the other nodes serve it no more. Asked again
/// after it was cut off, it goes on.
///
/// # Errors
/// The keys of the cluster are not here, nothing is known of the node's own, or log or servers are out of reach.
pub async fn remove(
    catalogue: &Catalogue,
    dir: &DataDir,
    node: &NodeId,
    now_ms: i64,
) -> anyhow::Result<()> {
    let authority = authority(dir)?;
    let known = catalogue.admitted().await?;
    if known.iter().any(|(admitted, _)| admitted == node) {
        record_about(catalogue, node, now_ms, |_| Some(NodeRemoved { node: node.clone() }.into()))
            .await?;
    } else {
        let rows = catalogue.nodes().await?;
        ensure!(
            rows.iter().any(|row| row.node == *node && row.removed),
            "{node} did not come with a ticket, so there is no key of it that could be refused"
        );
    }
    put_out(catalogue, dir, &authority).await?;
    info!(%node, "put out");
    Ok(())
}

/// Has the servers refuse all that were ever put out.
async fn put_out(
    catalogue: &Catalogue,
    dir: &DataDir,
    authority: &Authority,
) -> anyhow::Result<()> {
    // Servers believe what they are told last, so a longer list must not be overtaken by a shorter one.
    static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);
    let _turn = ONE_AT_A_TIME.acquire().await?;
    let membership = Membership::of(dir)?.context("this node is of no cluster")?;
    let mut keys = catalogue.keys_put_out().await?;
    // Whatever is recorded: who puts out stays in.
    let own = public_key(Key::of_file(&dir.key())?.secret())?;
    keys.retain(|key| *key != own);
    if !keys.is_empty() {
        authority.put_out(&keys, &log_options(&membership, dir, Begin::No)?).await?;
    }
    Ok(())
}

/// Answers newcomers for as long as this is wanted, once the keys of the cluster are here: where they were is lost,
/// perhaps, and somebody puts a copy into this directory.
pub async fn keep_the_door(dir: &DataDir, catalogue: &Catalogue, clock: &Clock) {
    loop {
        if dir.authority().exists()
            && let Err(error) = answer(dir, catalogue, clock).await
        {
            warn!(error = format!("{error:#}"), "newcomers are not answered");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn answer(dir: &DataDir, catalogue: &Catalogue, clock: &Clock) -> anyhow::Result<()> {
    let authority = Arc::new(authority(dir)?);
    let membership = Membership::of(dir)?.context("this node is of no cluster")?;
    let options = log_options(&membership, dir, Begin::No)?;
    let options = jetstream::Options { identity: Some(authority.identity()?), ..options };
    admit_the_first(catalogue, dir, clock.now_ms()).await?;
    let door = Door::open(&options, authority.clone()).await?;
    let answers = door.answer(|newcomer| async move {
        judge(catalogue, &newcomer, clock.now_ms()).await.map_err(|error| format!("{error:#}"))
    });
    // A server that lost what it was told, or was not there, and a removal that was cut off are made good.
    let removals = async {
        loop {
            if let Err(error) = put_out(catalogue, dir, &authority).await {
                warn!(error = format!("{error:#}"), "the servers are not told who was removed");
            }
            tokio::time::sleep(TOLD_AGAIN).await;
        }
    };
    tokio::select! {
        () = answers => Err(anyhow!("the way to the servers ended")),
        never = removals => match never {},
    }
}

/// Records of the node that began the cluster that it was let in, as of all others: else nothing would be known of
/// its key when it is to be put out.
async fn admit_the_first(catalogue: &Catalogue, dir: &DataDir, now_ms: i64) -> anyhow::Result<()> {
    let node = NodeId(hosts::identity(&dir.node())?);
    let key = public_key(Key::of_file(&dir.key())?.secret())?;
    let admitted = catalogue.admitted().await?;
    // All others came with a ticket; also in a cluster of which an older program recorded nothing of the first.
    if admitted.iter().any(|(_, known)| *known == key)
        || catalogue.keys_put_out().await?.contains(&key)
    {
        return Ok(());
    }
    let (invitation, role) = (key.clone(), "coordinator".to_owned());
    let invited = NodeInvited {
        invitation: invitation.clone(),
        role: role.clone(),
        // Nobody else can use it.
        expires_ms: now_ms,
        by: node.clone(),
    };
    let admitted = NodeAdmitted { invitation: invitation.clone(), node, key, role };
    record_or_leave(catalogue, Record::first(invited), now_ms).await?;
    let invitation = catalogue.invitation(&invitation).await?.context("try again")?;
    if invitation.used_by.is_none() {
        record_or_leave(catalogue, Record::after(admitted, invitation.position), now_ms).await?;
    }
    Ok(())
}

/// Records something unless another manager was faster: then what it recorded stands.
async fn record_or_leave(
    catalogue: &Catalogue,
    record: Record,
    now_ms: i64,
) -> Result<(), CatalogueError> {
    match catalogue.record(vec![record], now_ms).await {
        Err(error) if error.is_superseded() => Ok(()),
        recorded => recorded.map(drop),
    }
}

/// Lets a newcomer in, or says why not. The same one may ask again.
async fn judge(catalogue: &Catalogue, newcomer: &Newcomer, now_ms: i64) -> anyhow::Result<()> {
    let node = NodeId(newcomer.name.clone());
    ensure!(
        !catalogue.keys_put_out().await?.contains(&newcomer.key),
        "{node} was removed: it joins again with another ticket, and another key (remove its file `key`)"
    );
    let invitation = catalogue.invitation(&newcomer.invitation).await?;
    let invitation = invitation.context("nobody was invited with this ticket")?;
    if invitation.used_by.is_none() {
        ensure!(
            now_ms < invitation.expires_ms.min(newcomer.expires_ms),
            "the time of this ticket is over: ask for another one"
        );
        let admitted = catalogue.admitted().await?;
        let peer = public_bytes(&newcomer.key).map(|key| Hash::from_bytes(key).to_string());
        let is_taken =
            admitted.iter().any(|(name, key)| *name == node || *key == newcomer.key)
                || catalogue.nodes().await?.iter().any(|row| {
                    !row.removed && (row.node == node || Some(&row.peer) == peer.as_ref())
                });
        ensure!(
            !is_taken,
            "there is a node {node} already, or one with its key: a copied directory keeps both, remove its \
             files `node` and `key`"
        );
        let admitted = NodeAdmitted {
            invitation: newcomer.invitation.clone(),
            node: node.clone(),
            key: newcomer.key.clone(),
            role: invitation.role,
        };
        // Another manager may be asked at the same time: what was recorded is looked at below.
        record_or_leave(catalogue, Record::after(admitted, invitation.position), now_ms)
            .await
            .context("the log is out of reach: try again")?;
    }
    // Not what we meant to record, but what stands there.
    let invitation = catalogue.invitation(&newcomer.invitation).await?;
    let (used_by, key) = invitation.and_then(|row| row.used_by).context("try again")?;
    ensure!(
        used_by == node && key == newcomer.key,
        "this ticket was used already, by {used_by}: ask for another one"
    );
    Ok(())
}
