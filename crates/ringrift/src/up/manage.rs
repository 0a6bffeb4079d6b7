//! The manager at work: supervisor, socket, page, signals; and its orderly end.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::Context as _;
use ringrift_daemons::status_changed;
use tokio::{
    runtime::Handle as Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{
        broadcast::{Receiver, error::RecvError},
        watch,
    },
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use warden::{Breaker, Clock, Leadership, MemoryGauge, RestartPolicy, Supervisor, Transition};

use super::{
    feed::{Feed, Saved},
    goal::Goal,
    greet, history,
    leader::Seat,
    parts::Parts,
};
use crate::{
    config::Settings,
    console,
    control::{self, Control},
    data_dir::DataDir,
    http::Http,
    state::State,
};

/// Shortest time between two looks at what is new, and the time between two on a terminal, whose
/// status line lives.
const LOOK: Duration = Duration::from_secs(1);
/// The same where only the log and the supervisor say that something is new: for what neither does,
/// such as a disk that is full.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// Time for the last count of what was saved.
const COUNT_WITHIN: Duration = Duration::from_secs(5);
/// Workers that were told to stop get their grace and this much more.
const WORKERS_LEAVE: Duration = Duration::from_secs(5);

/// When to end.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// What ends it well.
    pub goal: Option<Goal>,
    /// After which time.
    pub timeout: Option<Duration>,
}

/// Why it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Somebody asked for it.
    Asked,
    /// The goal is reached.
    Reached(Goal),
    /// The time is over.
    TimeOver,
    /// A second signal: what still ran was left as it was.
    AtOnce(Vec<String>),
    /// Another process holds the lease of this node.
    Deposed,
    /// The supervisor ended by itself.
    Broken(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("stopped"),
            Self::Reached(goal) => write!(f, "{goal} is reached"),
            Self::TimeOver => f.write_str("the time is over"),
            Self::AtOnce(running) if running.is_empty() => f.write_str("stopped at once"),
            Self::AtOnce(running) => {
                write!(f, "stopped at once, with {} still running", running.join(", "))
            }
            Self::Deposed => f.write_str("another process runs under the name of this node"),
            Self::Broken(why) => write!(f, "the supervisor ended: {why}"),
        }
    }
}

/// Runs the manager on the runtime it is polled on, the daemons on theirs.
pub async fn run(
    settings: &Settings,
    dir: &DataDir,
    parts: &mut Parts,
    http: &Arc<Http>,
    order: &Order,
    daemons: &Runtime,
    mut signals: Signals,
) -> anyhow::Result<(End, Saved)> {
    let runnables = std::mem::take(&mut parts.runnables);
    let the_loop = &parts.state.the_loop;
    let node = the_loop.shared.then(|| the_loop.node.clone());
    let runnables = history::recall(&parts.log, node.as_ref(), runnables).await?;
    let (handle, supervision) =
        Supervisor::new(runnables, supervisor_settings(settings, daemons), Clock::system())?;
    parts.bell.connect(Line(handle.clone()));

    let tasks = TaskTracker::new();
    let supervision = tasks.spawn(supervision);
    let transitions = tasks.spawn(record(handle.transitions(), parts.state.clone()));
    let histories = tasks.spawn(history::keep(
        handle.notices(),
        parts.state.catalogue.clone(),
        node,
        Clock::system(),
    ));
    if !parts.state.leases.leads() {
        handle.lead(Leadership::Lost).await?;
    }
    let seat = parts.seat.take().context("take the place of this node a second time")?;
    let left = CancellationToken::new();
    let mut kept = tasks.spawn_on(keep(seat, handle.clone(), left.clone()), daemons);
    let followed = parts
        .others
        .clone()
        .map(|others| tasks.spawn_on(others.keep(parts.state.clone()), daemons));
    let serving = CancellationToken::new();
    let asked = CancellationToken::new();
    let control = Arc::new(Control {
        state: parts.state.clone(),
        handle: handle.clone(),
        settings: settings.clone(),
        stop: asked.clone(),
        url: format!("http://{}/", http.address()),
    });
    let operator = (control.clone() as _, dir.make_token()?);
    let shown = Arc::new(parts.state.clone());
    let page = tasks.spawn(Arc::clone(http).serve(shown, operator, serving.clone()));
    let listener = control::listen(&dir.make_socket_place()?)?;
    let socket = tasks.spawn(control::serve(listener, control));

    greet(settings, parts, order, http);
    let started = handle.start_planned(&parts.plan.start).await?;
    for id in started.failed {
        warn!(daemon = %id, "given up by an earlier manager: start or retry it when it is mended");
    }

    // On the daemons' runtime: a terminal that takes no more text must not hold the supervisor up.
    let done = CancellationToken::new();
    let (goal_reached, mut reached) = watch::channel(false);
    let feed = Feed::new(parts.state.clone(), parts.began_at);
    let moves = handle.transitions();
    let feed = tasks.spawn_on(look(feed, moves, order.goal, goal_reached, done.clone()), daemons);

    let deadline = order.timeout.map(|timeout| Instant::now() + timeout);
    let end = tokio::select! {
        () = signals.next() => End::Asked,
        () = asked.cancelled() => End::Asked,
        Ok(_) = reached.wait_for(|reached| *reached) => match order.goal {
            Some(goal) => End::Reached(goal),
            None => End::Asked,
        },
        () = until(deadline) => End::TimeOver,
        seat = &mut kept => {
            parts.seat = Some(seat.context("keep the leases of this node")?);
            End::Deposed
        }
        ended = supervision => End::Broken(match ended {
            Ok(_) => "nobody asked it to".into(),
            Err(error) => error.to_string(),
        }),
    };
    info!(reason = %end, "this manager ends");
    let end = stop(end, &handle, &mut signals).await;
    done.cancel();
    left.cancel();
    if parts.seat.is_none() {
        // It does not come back from a runtime whose threads are all blocked; then the leases run out.
        parts.seat = tokio::time::timeout(COUNT_WITHIN, kept).await.ok().transpose()?;
    }
    // Daemons that block every thread of their runtime hold this count up, but not our end.
    let saved = if let Ok(saved) = tokio::time::timeout(COUNT_WITHIN, feed).await {
        saved.context("count what was saved")?
    } else {
        warn!("what was saved cannot be counted: the daemons' runtime is blocked");
        Saved::default()
    };
    // What the daemons had in hand ends with them; this is for what they no longer waited for.
    if !matches!(end, End::AtOnce(_)) {
        let limit = settings.grace + WORKERS_LEAVE;
        tokio::select! {
            () = parts.state.workshop.closed() => {}
            () = tokio::time::sleep(limit) => warn!("worker processes are ended by force"),
            () = signals.next() => warn!("worker processes are ended at once"),
        }
    }
    serving.cancel();
    drop(page.await);
    socket.abort();
    if let Some(followed) = followed {
        followed.abort();
    }
    transitions.abort();
    histories.abort();
    Ok((end, saved))
}

/// Keeps the leases until the node lost its own, or all that needs them has ended.
async fn keep(mut seat: Seat, handle: warden::Handle, left: CancellationToken) -> Seat {
    tokio::select! {
        () = seat.keep(&handle) => {}
        () = left.cancelled() => {}
    }
    seat
}

/// Stops all daemons in order; a second signal stops at once.
async fn stop(end: End, handle: &warden::Handle, signals: &mut Signals) -> End {
    if matches!(end, End::Broken(_)) {
        return end;
    }
    console::status("");
    console::say(&format!("{end}: daemons are stopped in order (once more: at once)"));
    let orderly = handle.shutdown();
    tokio::pin!(orderly);
    tokio::select! {
        _ = &mut orderly => end,
        () = signals.next() => {
            let snapshot = handle.snapshot();
            let running = snapshot
                .daemons
                .iter()
                .filter(|view| view.state != warden::State::Stopped && view.asked)
                .map(|view| view.id.0.to_owned())
                .collect();
            // The second call aborts what is left.
            drop(tokio::time::timeout(Duration::from_secs(1), handle.shutdown()).await);
            End::AtOnce(running)
        }
    }
}

fn supervisor_settings(settings: &Settings, daemons: &Runtime) -> warden::Settings {
    warden::Settings {
        restart: RestartPolicy {
            base: settings.restart_base,
            cap: settings.restart_cap,
            max_override: settings.restart_max,
            hourly: settings.hourly.clone(),
            breaker: settings.cascade_breaker.then(Breaker::default),
            ..RestartPolicy::default()
        },
        health_interval: settings.health_interval,
        shutdown_timeout: settings.shutdown_timeout,
        memory: MemoryGauge::new(memory_used),
        ..warden::Settings::new(daemons.clone())
    }
}

/// Percent of the machine's memory in use; `None` when it cannot be told.
fn memory_used() -> Option<u8> {
    let memory = hosts::memory().ok()?;
    let used = memory.total.saturating_sub(memory.available);
    u8::try_from(used.saturating_mul(100).checked_div(memory.total)?).ok()
}

/// The daemons' line to the supervisor.
struct Line(warden::Handle);

impl ringrift_daemons::Supervision for Line {
    fn wake(&self, token: warden::Wake) {
        self.0.wake(token);
    }

    fn wake_daemon(&self, id: warden::DaemonId) {
        self.0.wake_daemon(id);
    }

    fn snapshot(&self) -> Arc<warden::Snapshot> {
        self.0.snapshot()
    }
}

/// Most changes of state that one append takes: all daemons there are, twice.
const CHANGES_AT_ONCE: usize = 178;

/// Writes every change of state down; those that come together in one append.
async fn record(mut transitions: Receiver<Transition>, state: State) {
    loop {
        let mut changes = Vec::new();
        match transitions.recv().await {
            Ok(change) => changes.push(change),
            Err(RecvError::Lagged(missed)) => {
                warn!(missed, "changes of state came faster than they could be noted");
                continue;
            }
            Err(RecvError::Closed) => return,
        }
        // A gap shows at the next look.
        while changes.len() < CHANGES_AT_ONCE
            && let Ok(change) = transitions.try_recv()
        {
            changes.push(change);
        }
        let at_ms = changes.last().map_or(0, |change| change.at_ms);
        let facts = changes.into_iter().map(status_changed);
        // A note that cannot be written (disk full) changes nothing: the snapshot has it.
        if let Err(error) = state.catalogue.note_all(facts.collect(), at_ms).await {
            warn!(%error, "changes of state are not noted");
        }
    }
}

/// Tells what happens until it is done; returns what was saved.
async fn look(
    mut feed: Feed,
    mut moves: Receiver<Transition>,
    goal: Option<Goal>,
    reached: watch::Sender<bool>,
    done: CancellationToken,
) -> Saved {
    let mut facts = feed.tail();
    // An idle manager does not look: nothing is read unless there is something to read.
    let rest = if console::is_terminal() { LOOK } else { LOOK_ANYWAY };
    facts.mark_changed();
    loop {
        let is_news = facts.has_changed().unwrap_or(false);
        facts.mark_unchanged();
        moves = moves.resubscribe();
        feed.turn(is_news).await;
        if let Some(goal) = goal.filter(|_| is_news) {
            match feed.is_reached(goal).await {
                Ok(now) => {
                    reached.send_if_modified(|was| std::mem::replace(was, now) != now);
                }
                Err(error) => warn!(%error, "the goal cannot be looked at"),
            }
        }
        let news = async {
            tokio::time::sleep(LOOK).await;
            tokio::select! {
                // Whoever is gone wakes nobody; the time does.
                Ok(()) = facts.changed() => facts.mark_changed(),
                Ok(_) = moves.recv() => {}
                () = tokio::time::sleep(rest.saturating_sub(LOOK)) => {}
            }
        };
        tokio::select! {
            () = done.cancelled() => break,
            () = news => {}
        }
    }
    feed.read().await;
    feed.saved
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What a person or an init system sends.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on they end nothing by themselves, and none is missed.
    pub fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Somebody asks to stop.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => info!("SIGTERM"),
            _ = self.interrupt.recv() => info!("SIGINT"),
        }
    }
}
