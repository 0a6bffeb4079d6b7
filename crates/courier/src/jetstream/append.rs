//! Appends: who appends one message sends it himself, side by side with others; what needs more waits for a task,
//! which puts those that wait together into one atomic batch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{RwLock, mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::Shared;
use super::known::{Depth, Knowledge, Known};
use super::server::{BATCH, Message, Published};
use super::streams::remembered;
use super::wire::{Content, EXPECTED_IN_ALL, Epoch, Source, Stored, fact_headers};
use crate::courier::Repeats;
use crate::error::{AppendError, Error, Fenced};
use crate::fact::{Batch, Expect, Fence, MAX_BATCH_BYTES, Stream};

/// Messages that are on their way side by side, and facts that are looked at together: bounds how long the
/// first waits for the last.
const GROUP: usize = 256;

/// The first wait before an append is tried again, and the longest.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Operational facts beyond the limit are removed once in so many.
const KEEP_EVERY: u64 = 4096;

/// A batch to be appended.
pub(super) struct Job {
    pub(super) batch: Batch,
    /// The bodies as JSON, in order.
    pub(super) bodies: Vec<String>,
    pub(super) now_ms: i64,
    /// Until when it is tried.
    pub(super) until: Instant,
}

/// One that waits for the stream to itself, and then for its positions.
pub(super) struct Waiting {
    job: Job,
    answer: oneshot::Sender<Result<Vec<u64>, AppendError>>,
}

impl Waiting {
    /// Nobody listens if the caller was cancelled.
    fn tell(self, outcome: Result<Vec<u64>, AppendError>) {
        drop(self.answer.send(outcome));
    }
}

/// What appends to one stream share.
pub(super) struct Appender {
    shared: Arc<Shared>,
    stream: Stream,
    /// Batches of one message go out as they come, without a wait for those before them: their conditions are
    /// checked by the server, in the order in which it gets them. What needs more than that waits until
    /// nothing is on its way, and what comes then waits for it.
    turn: RwLock<()>,
    knowledge: Mutex<Knowledge>,
    slow: mpsc::Sender<Waiting>,
    since_kept: AtomicU64,
}

/// What is to be done with a batch, as far as is known.
enum Verdict {
    /// All is in the stream already.
    Done(Vec<u64>, Repeats),
    /// These facts of it can be sent; the number is the guard's message, if it has a fence.
    Send(Vec<usize>, Option<u64>),
    /// The lease moved on, or its guard has not come.
    Fence,
    /// As the log looks from here; it may look so only from here.
    No(AppendError),
}

/// What one look at a batch came to.
enum Step {
    Done(Vec<u64>),
    /// Something was found out: look again at once.
    Look,
    /// Look again in a while, for this reason.
    Again(String),
}

/// Serves those that need the stream for themselves, until nobody can send any more; lets go what is looked at
/// when its time is over.
pub(super) async fn serve(appender: Arc<Appender>, mut slow: mpsc::Receiver<Waiting>) {
    loop {
        let aged = appender.knowledge().aged();
        let first = tokio::select! {
            first = slow.recv() => first,
            () = aged => {
                appender.knowledge().let_go();
                continue;
            }
        };
        let Some(first) = first else { return };
        let _alone = appender.turn.write().await;
        let facts = |waiting: &Waiting| waiting.job.batch.facts.len();
        let mut room = GROUP.saturating_sub(facts(&first));
        let mut together = VecDeque::from([first]);
        while room > 0
            && let Ok(next) = slow.try_recv()
        {
            room = room.saturating_sub(facts(&next));
            together.push_back(next);
        }
        while !together.is_empty() {
            appender.serve(&mut together).await;
        }
        appender.keep().await;
    }
}

impl Appender {
    /// Also gives where those come that have to be served.
    pub(super) fn new(shared: Arc<Shared>, stream: Stream) -> (Arc<Self>, mpsc::Receiver<Waiting>) {
        let (slow, waiting) = mpsc::channel(shared.options.queue.max(1));
        let side_by_side = u32::try_from(GROUP).unwrap_or(u32::MAX);
        let appender = Self {
            shared,
            stream,
            turn: RwLock::with_max_readers((), side_by_side),
            knowledge: Mutex::default(),
            slow,
            since_kept: AtomicU64::new(0),
        };
        (Arc::new(appender), waiting)
    }

    /// Appends a batch. If this is dropped, the batch may be appended all the same.
    pub(super) async fn append(&self, job: Job) -> Result<Vec<u64>, AppendError> {
        if let Some(positions) = self.at_once(&job).await? {
            self.keep().await;
            return Ok(positions);
        }
        let (answer, answered) = oneshot::channel();
        self.slow.send(Waiting { job, answer }).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Sends a batch of one message, if nothing that is known speaks against it and the server can check it; none
    /// if it has to be served.
    async fn at_once(&self, job: &Job) -> Result<Option<Vec<u64>>, AppendError> {
        let _beside_others = self.turn.read().await;
        self.freshen().await;
        let known = self.look(job)?;
        let (n, guard) = match judge(&job.batch, &known) {
            Verdict::Done(positions, repeats) => {
                self.shared.count(self.stream, repeats);
                return Ok(Some(positions));
            }
            // A batch of messages costs the server a file of its own, tens of milliseconds.
            Verdict::Send(facts, guard) => match facts[..] {
                [n] if guard.is_none() || job.batch.facts[n].expect.is_none() => (n, guard),
                _ => return Ok(None),
            },
            Verdict::Fence | Verdict::No(_) => return Ok(None),
        };
        let (published, positions) = self.send_alone(job, &known, vec![n], guard, None).await?;
        Ok(matches!(published, Published::At(_)).then_some(positions))
    }

    /// Looks at those that wait, while nothing is on its way: sends as many as fit into one batch, and then what has
    /// to be looked at one by one.
    async fn serve(&self, waiting: &mut VecDeque<Waiting>) {
        self.freshen().await;
        let jobs = waiting.iter().map(|one| &one.job);
        let known = self.knowledge().know(&self.shared.replica, self.stream, jobs, Depth::Ids);
        let known = match known {
            Ok(known) => known,
            Err(error) => {
                let detail = error.to_string();
                for one in waiting.drain(..) {
                    one.tell(Err(Error::Unavailable(detail.clone()).into()));
                }
                return;
            }
        };
        let (mut group, mut slow) = (Group::default(), Vec::new());
        for known in known {
            let Some(one) = waiting.pop_front() else { break };
            match judge(&one.job.batch, &known) {
                Verdict::Done(positions, repeats) => {
                    self.shared.count(self.stream, repeats);
                    one.tell(Ok(positions));
                }
                // With its fence it might be one message too many.
                Verdict::Send(facts, Some(_)) if facts.len() == BATCH => slow.push(one),
                // No batch for what is one message.
                Verdict::Send(facts, _) if facts.len() == 1 => slow.push(one),
                Verdict::Send(facts, guard) => {
                    if let Err(one) = group.add(one, &known, facts, guard) {
                        waiting.push_back(*one);
                    }
                }
                // Whoever is refused is refused by the log as it is now.
                Verdict::Fence | Verdict::No(_) => slow.push(one),
            }
        }
        if !group.members.is_empty() {
            slow.splice(0..0, self.send_group(group).await);
        }
        for one in slow {
            let outcome = self.decide(&one.job).await;
            one.tell(outcome);
        }
    }

    /// Sends a group; gives back those that have to be looked at one by one.
    async fn send_group(&self, group: Group) -> Vec<Waiting> {
        let messages = match messages(&self.shared, self.stream, &group.parts(), None) {
            Ok(written) => written,
            Err(error) => {
                warn!(%error, "facts that cannot be written as headers");
                return group.members.into_iter().map(|member| member.one).collect();
            }
        };
        let count = messages.len() as u64;
        let connection = self.shared.server.connection();
        let published = self.shared.server.publish(messages).await;
        let Published::At(last) = published else {
            return group.members.into_iter().map(|member| member.one).collect();
        };
        let mut position = self.landed(connection, last, count, &group.parts());
        for Member { one, sent, mut positions, repeats } in group.members {
            for n in sent {
                positions[n] = Some(position);
                position += 1;
            }
            self.shared.count(self.stream, repeats);
            one.tell(Ok(positions.into_iter().flatten().collect()));
        }
        Vec::new()
    }

    /// Takes note of so many messages that are in the stream; gives the position of the first fact.
    fn landed(&self, connection: u64, last: u64, count: u64, parts: &[Part<'_>]) -> u64 {
        self.since_kept.fetch_add(count, Ordering::Relaxed);
        let facts = || parts.iter().flat_map(|part| part.sent.iter().map(|n| (part.job, *n)));
        let first = last + 1 - facts().count() as u64;
        // The message that carries the fence, if that is one of its own, comes before the facts.
        let mut contents: Vec<Content> =
            (last + 1 - count..first).map(|_| Content::Nothing).collect();
        let mut knowledge = self.knowledge();
        for ((Job { batch, bodies, now_ms, .. }, n), position) in facts().zip(first..) {
            let stored = Arc::new(Stored::of(&batch.facts[n], &bodies[n], *now_ms));
            knowledge.own.add(position, Arc::clone(&stored));
            contents.push(Content::Fact(stored));
        }
        drop(knowledge);
        self.shared.replica.acknowledge(Source::Facts(self.stream), connection, last, contents);
        first
    }

    /// Looks at one batch with all that is in the log, as often as it takes, while nothing is on its way.
    async fn decide(&self, job: &Job) -> Result<Vec<u64>, AppendError> {
        let mut pause = PAUSE;
        let mut was_sent = false;
        if let Some(positions) = self.unasked(job, &mut was_sent).await? {
            return Ok(positions);
        }
        loop {
            let why = match self.step(job, &mut was_sent).await? {
                Step::Done(positions) => return Ok(positions),
                Step::Look => continue,
                Step::Again(why) => why,
            };
            if Instant::now() + pause > job.until {
                return Err(Error::Unavailable(why).into());
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A single fact with a fence and a condition, which nothing else speaks against here, is sent without
    /// asking what others appended: if they did, it is refused and looked at with all there is.
    async fn unasked(
        &self,
        job: &Job,
        was_sent: &mut bool,
    ) -> Result<Option<Vec<u64>>, AppendError> {
        if job.batch.facts.len() > 1 {
            return Ok(None);
        }
        let known = self.know(job, Depth::All)?;
        let Verdict::Send(facts, guard @ Some(_)) = judge(&job.batch, &known) else {
            return Ok(None);
        };
        let end = self.knowledge().own.end(known.applied);
        let (published, positions) = self.send_alone(job, &known, facts, guard, Some(end)).await?;
        *was_sent = matches!(published, Published::Unknown(_));
        Ok(matches!(published, Published::At(_)).then_some(positions))
    }

    /// One look at a batch, and what follows from it.
    async fn step(&self, job: &Job, was_sent: &mut bool) -> Result<Step, AppendError> {
        if let Err(error) = self.shared.sync(Source::Facts(self.stream), job.until).await {
            return Ok(Step::Again(error.to_string()));
        }
        self.knowledge().glance.end();
        let known = self.know(job, Depth::All);
        // What comes now may take its time.
        self.knowledge().glance.end();
        let known = known?;
        match judge(&job.batch, &known) {
            Verdict::Done(positions, repeats) => {
                // What we sent ourselves and heard nothing of is no repetition.
                if !*was_sent {
                    self.shared.count(self.stream, repeats);
                }
                Ok(Step::Done(positions))
            }
            Verdict::No(error) => Err(error),
            Verdict::Fence => match self.fence(job, &known).await? {
                Some(refused) => Err(refused),
                None => Ok(Step::Look),
            },
            Verdict::Send(facts, guard) => {
                // The stream as a whole is a condition that others may spoil: once, unless there is no
                // other way.
                let applied = (!*was_sent || facts.len() == BATCH).then_some(known.applied);
                *was_sent = true;
                Ok(match self.send_alone(job, &known, facts, guard, applied).await? {
                    (Published::At(_), positions) => Step::Done(positions),
                    (other, _) => Step::Again(other.why()),
                })
            }
        }
    }

    async fn send_alone(
        &self,
        job: &Job,
        known: &Known,
        facts: Vec<usize>,
        guard: Option<u64>,
        applied: Option<u64>,
    ) -> Result<(Published, Vec<u64>), AppendError> {
        let parts = [Part { job, sent: &facts, guard }];
        let messages = messages(&self.shared, self.stream, &parts, applied)
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let count = messages.len() as u64;
        let connection = self.shared.server.connection();
        let published = self.shared.server.publish(messages).await;
        let mut positions: Vec<_> =
            known.facts.iter().map(|known| known.as_ref().map(|known| known.0)).collect();
        if let Published::At(last) = published {
            let first = self.landed(connection, last, count, &parts);
            self.shared.count(self.stream, repeats(known));
            for (n, position) in facts.into_iter().zip(first..) {
                positions[n] = Some(position);
            }
        }
        Ok((published, positions.into_iter().flatten().collect()))
    }

    /// A fence that does not hold: sets the guard if the lease is in force, else says why not.
    async fn fence(&self, job: &Job, known: &Known) -> Result<Option<AppendError>, Error> {
        let Some(Fence { lease, epoch }) = job.batch.fence.clone() else { return Ok(None) };
        let state = self.shared.fence_state(&lease, job.until).await?;
        let wanted = Epoch { epoch, over: false };
        let is_behind = known.guard.is_none_or(|(guard, _)| guard < wanted);
        if state == Some(wanted) && is_behind {
            self.shared.raise(self.stream, &lease, wanted, job.until).await?;
            return Ok(None);
        }
        if state == Some(wanted) {
            // The guard is ahead of what we knew of the lease; now we know.
            return Ok(None);
        }
        // Whoever learns of a later epoch here must not see an earlier one act in the other stream.
        self.shared.guard(&lease, job.until).await?;
        let current = state.filter(|state| !state.over).map(|state| state.epoch);
        Ok(Some(Fenced { lease, epoch, current }.into()))
    }

    fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        self.knowledge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a batch: at a glance, and anew where that would hold it up.
    fn look(&self, job: &Job) -> Result<Known, Error> {
        let is_new = self.knowledge().glance.is_over();
        let known = self.know(job, Depth::Ids)?;
        if is_new || !matches!(judge(&job.batch, &known), Verdict::Fence | Verdict::No(_)) {
            return Ok(known);
        }
        self.knowledge().glance.end();
        self.know(job, Depth::Ids)
    }

    /// What the replica and our own last appends say of a batch.
    fn know(&self, job: &Job, depth: Depth) -> Result<Known, Error> {
        let known = self.knowledge().know(&self.shared.replica, self.stream, [job], depth)?;
        known.into_iter().next().ok_or(Error::Closed)
    }

    /// The server forgets ids after a while; until then the replica has to show what they were.
    async fn freshen(&self) {
        let source = Source::Facts(self.stream);
        if self.shared.synced_since(source) > remembered(source, &self.shared.options) / 4 {
            // Whether it succeeds is seen by what follows.
            drop(self.shared.sync(source, Instant::now() + Duration::from_secs(2)).await);
        }
    }

    /// Removes operational facts beyond the limit.
    async fn keep(&self) {
        if self.stream != Stream::Operational
            || self.since_kept.load(Ordering::Relaxed) < KEEP_EVERY
            // Of several that see it one does it.
            || self.since_kept.swap(0, Ordering::Relaxed) < KEEP_EVERY
        {
            return;
        }
        let most = self.shared.options.retention.max_facts;
        if let Err(error) = self.shared.server.keep(self.stream, most).await {
            warn!(%error, "old operational facts stay for now");
        }
    }
}

/// A batch of its own or several that do not touch each other.
#[derive(Default)]
struct Group {
    members: Vec<Member>,
    fence: Option<(Fence, u64)>,
    subjects: HashSet<String>,
    ids: HashSet<String>,
    messages: usize,
    bytes: usize,
}

struct Member {
    one: Waiting,
    /// Which of its facts are sent.
    sent: Vec<usize>,
    /// Where the others are already.
    positions: Vec<Option<u64>>,
    repeats: Repeats,
}

impl Group {
    /// Adds a job, or gives it back because it has to wait for what is here.
    fn add(
        &mut self,
        one: Waiting,
        known: &Known,
        sent: Vec<usize>,
        guard: Option<u64>,
    ) -> Result<(), Box<Waiting>> {
        let job = &one.job;
        let facts = || sent.iter().map(|n| &job.batch.facts[*n]);
        let bytes: usize = sent.iter().map(|n| job.bodies[*n].len()).sum();
        let fence = job.batch.fence.clone().zip(guard);
        let fits = self.members.is_empty()
            || fence == self.fence
                && self.messages + sent.len() < BATCH
                && self.bytes + bytes <= MAX_BATCH_BYTES
                // Each expects the log as it is before the batch.
                && !facts().any(|fact| {
                    fact.expect.is_some() && self.subjects.contains(&fact.subject)
                        || self.ids.contains(&fact.id)
                });
        if !fits {
            return Err(Box::new(one));
        }
        for fact in facts() {
            self.subjects.insert(fact.subject.clone());
            self.ids.insert(fact.id.clone());
        }
        self.fence = fence;
        self.messages += sent.len();
        self.bytes += bytes;
        let positions = known.facts.iter().map(|known| known.as_ref().map(|known| known.0));
        let positions = positions.collect();
        self.members.push(Member { one, sent, positions, repeats: repeats(known) });
        Ok(())
    }

    fn parts(&self) -> Vec<Part<'_>> {
        let guard = self.fence.as_ref().map(|(_, guard)| *guard);
        let parts = self.members.iter();
        parts.map(|Member { one, sent, .. }| Part { job: &one.job, sent, guard }).collect()
    }
}

/// A job and which of its facts are sent.
struct Part<'a> {
    job: &'a Job,
    sent: &'a [usize],
    guard: Option<u64>,
}

/// The messages of a batch; those of its facts are the last.
///
/// A message has room for one condition. Its own subject's comes first; the fence goes to the first
/// message with room, or to one of its own. Where that is not possible, or not worth a batch, the guard
/// holds because the stream as a whole is as the replica shows it: `applied`, if that may be asked for.
fn messages(
    shared: &Shared,
    stream: Stream,
    parts: &[Part<'_>],
    applied: Option<u64>,
) -> Result<Vec<Message>, serde_json::Error> {
    let names = &shared.server.names;
    let mut messages = Vec::new();
    let mut touched = HashSet::new();
    for Part { job, sent, .. } in parts {
        let facts = || sent.iter().map(|n| (&job.batch.facts[*n], &job.bodies[*n]));
        let expected: HashMap<&str, u64> = facts()
            .filter_map(|(fact, _)| {
                let Expect::LastOnSubject(position) = fact.expect?;
                Some((fact.subject.as_str(), position))
            })
            .collect();
        for (fact, body) in facts() {
            let mut message = Message::new(names.fact(stream, &fact.subject), body.clone());
            message.headers = fact_headers(fact, job.now_ms)?;
            // The server knows of one condition for a subject and batch, at its first message.
            if touched.insert(fact.subject.clone())
                && let Some(position) = expected.get(fact.subject.as_str())
            {
                message = message.after(*position);
            }
            messages.push(message);
        }
    }
    if let Some((guard, fence)) =
        parts.first().and_then(|part| part.guard.zip(part.job.batch.fence.as_ref()))
    {
        let subject = names.guard(stream, &fence.lease);
        if let Some(n) = messages.iter().position(Message::is_free) {
            let free = messages.remove(n);
            messages.insert(n, free.after_on(&subject, guard));
        } else if let Some(applied) = applied.filter(|_| matches!(messages.len(), 1 | BATCH)) {
            messages[0].headers.insert(EXPECTED_IN_ALL, applied.to_string());
        } else {
            let carrier = Message::new(names.fence(stream), "");
            messages.insert(0, carrier.after_on(&subject, guard));
        }
    }
    Ok(messages)
}

fn repeats(known: &Known) -> Repeats {
    let known = known.facts.iter().flatten();
    known.fold(Repeats::default(), |sum, (_, _, same)| Repeats {
        by_id: sum.by_id + 1,
        by_content: sum.by_content + u64::from(*same),
    })
}

/// What a batch is due, if the log is as it is known.
fn judge(batch: &Batch, known: &Known) -> Verdict {
    let facts = || batch.facts.iter().zip(&known.facts);
    for (fact, found) in facts() {
        if let Some((_, taken_by, _)) = found
            && *taken_by != fact.subject
        {
            let (id, subject) = (fact.id.clone(), fact.subject.clone());
            let taken_by = taken_by.clone();
            return Verdict::No(AppendError::IdReused { id, subject, taken_by });
        }
    }
    let new: Vec<usize> = (0..batch.facts.len()).filter(|n| known.facts[*n].is_none()).collect();
    if new.is_empty() {
        let positions = known.facts.iter().flatten().map(|(position, ..)| *position).collect();
        return Verdict::Done(positions, repeats(known));
    }
    let mut guard = None;
    if let Some(fence) = &batch.fence {
        let wanted = Epoch { epoch: fence.epoch, over: false };
        match known.guard {
            Some((found, sequence)) if found == wanted => guard = Some(sequence),
            _ => return Verdict::Fence,
        }
    }
    for n in &new {
        let fact = &batch.facts[*n];
        if let Some(Expect::LastOnSubject(expected)) = fact.expect
            && let Some(actual) = known.last[*n]
            && expected != actual
        {
            let subject = fact.subject.clone();
            return Verdict::No(AppendError::Conflict { subject, expected, actual });
        }
    }
    Verdict::Send(new, guard)
}
