//! Appends: one task per stream puts those that wait together into one atomic batch.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::Shared;
use super::known::{Depth, Glance, Known, Own, past};
use super::server::{BATCH, Message, Published, remembered};
use super::wire::{EXPECTED_IN_ALL, Epoch, Source, fact_headers};
use crate::courier::Repeats;
use crate::error::{AppendError, Error};
use crate::fact::{Batch, Expect, Fence, MAX_BATCH_BYTES, Stream};

/// Facts that are looked at or on their way at a time, beyond which no further batch is taken: bounds how
/// long the first waits for the last.
const GROUP: usize = 256;

/// The first wait before an append is tried again, and the longest.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Operational facts beyond the limit are removed once in so many.
const KEEP_EVERY: u64 = 4096;

/// A batch that waits for its positions.
pub(super) struct Job {
    pub(super) batch: Batch,
    /// The bodies as JSON, in order.
    pub(super) bodies: Vec<String>,
    pub(super) now_ms: i64,
    /// Until when it is tried.
    pub(super) until: Instant,
    pub(super) answer: oneshot::Sender<Result<Vec<u64>, AppendError>>,
}

/// Takes batches until nobody can send any more.
///
/// Batches of one message go out as they come, without a wait for those before them: their conditions
/// are checked by the server, in the order in which it gets them. What needs more than that is held
/// until nothing is on its way, and what comes then waits for it.
pub(super) async fn take(shared: Arc<Shared>, stream: Stream, mut jobs: mpsc::Receiver<Job>) {
    let (own, glance) = (Own::default(), Glance::default());
    let mut appender = Appender { shared, stream, own, glance, since_kept: 0 };
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut flying = FuturesUnordered::new();
    let mut held = Held::default();
    let mut over = false;
    loop {
        if waiting.is_empty() {
            if over && flying.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                Some(landed) = flying.next() => held.slow.extend(appender.landed(landed)),
                job = jobs.recv(), if !over && flying.len() < GROUP => match job {
                    Some(job) => waiting.push_back(job),
                    None => over = true,
                },
                () = past(appender.glance.until()) => {
                    appender.glance.end();
                    continue;
                }
            }
        }
        let facts = |job: &Job| job.batch.facts.len();
        let mut room =
            GROUP.saturating_sub(flying.len() + waiting.iter().map(facts).sum::<usize>());
        while room > 0
            && let Ok(job) = jobs.try_recv()
        {
            room = room.saturating_sub(facts(&job));
            waiting.push_back(job);
        }
        for single in appender.sort(&mut waiting, &mut held).await {
            flying.push(fly(Arc::clone(&appender.shared), stream, single));
        }
        if !held.is_empty() {
            while let Some(landed) = flying.next().await {
                held.slow.extend(appender.landed(landed));
            }
            appender.serve(std::mem::take(&mut held)).await;
        }
        appender.keep().await;
    }
}

/// A batch of which one message is to be sent.
struct Single {
    job: Job,
    known: Known,
    /// Which of its facts.
    n: usize,
    guard: Option<u64>,
}

/// Sends one.
async fn fly(shared: Arc<Shared>, stream: Stream, single: Single) -> (Single, Published) {
    let Single { job, n, guard, .. } = &single;
    let parts = [Part { job, sent: std::slice::from_ref(n), guard: *guard }];
    let published = match messages(&shared, stream, &parts, None) {
        Ok((messages, _)) => shared.server.publish(messages).await,
        Err(error) => Published::Unknown(error.to_string()),
    };
    (single, published)
}

/// What waits until nothing is on its way.
#[derive(Default)]
struct Held {
    /// One atomic batch.
    group: Group,
    /// To be looked at one by one.
    slow: Vec<Job>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.group.jobs.is_empty() && self.slow.is_empty()
    }
}

struct Appender {
    shared: Arc<Shared>,
    stream: Stream,
    own: Own,
    glance: Glance,
    since_kept: u64,
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

impl Appender {
    /// Looks at those that wait: gives those of one message, and holds the others as far as they fit
    /// into one batch.
    async fn sort(&mut self, waiting: &mut VecDeque<Job>, held: &mut Held) -> Vec<Single> {
        if waiting.is_empty() {
            return Vec::new();
        }
        self.freshen().await;
        let count = waiting.len();
        let known = match self.look(waiting.make_contiguous()) {
            Ok(known) => known,
            Err(error) => {
                let detail = error.to_string();
                for job in waiting.drain(..) {
                    // Nobody listens if the caller was cancelled.
                    let error = Error::Unavailable(detail.clone()).into();
                    drop(job.answer.send(Err(error)));
                }
                return Vec::new();
            }
        };
        let mut singles = Vec::new();
        for known in known.into_iter().take(count) {
            let Some(job) = waiting.pop_front() else { break };
            match judge(&job.batch, &known) {
                Verdict::Done(positions, repeats) => {
                    self.shared.count(self.stream, repeats);
                    drop(job.answer.send(Ok(positions)));
                }
                // With its fence it might be one message too many.
                Verdict::Send(facts, Some(_)) if facts.len() == BATCH => held.slow.push(job),
                // A batch costs the server a file of its own, tens of milliseconds.
                Verdict::Send(facts, guard) if facts.len() == 1 => {
                    let n = facts[0];
                    if guard.is_none() || job.batch.facts[n].expect.is_none() {
                        singles.push(Single { job, known, n, guard });
                    } else {
                        held.slow.push(job);
                    }
                }
                Verdict::Send(facts, guard) => {
                    if let Err(job) = held.group.add(job, &known, facts, guard) {
                        waiting.push_back(*job);
                    }
                }
                // Whoever is refused is refused by the log as it is now.
                Verdict::Fence | Verdict::No(_) => held.slow.push(job),
            }
        }
        singles
    }

    /// Takes note of one that was sent; gives it back if it has to be looked at.
    fn landed(&mut self, (single, published): (Single, Published)) -> Option<Job> {
        let Single { job, known, n, .. } = single;
        let Published::At(position) = published else { return Some(job) };
        self.shared.replica.acknowledge(Source::Facts(self.stream), position);
        self.since_kept += 1;
        self.shared.count(self.stream, repeats(&known));
        self.own.add(position, &job.batch.facts[n], &job.bodies[n]);
        let positions = known.facts.iter().map(|known| known.as_ref().map(|known| known.0));
        let positions = positions.map(|known| known.unwrap_or(position)).collect();
        drop(job.answer.send(Ok(positions)));
        None
    }

    /// What was held, when nothing is on its way any more.
    async fn serve(&mut self, held: Held) {
        let Held { group, mut slow } = held;
        if !group.jobs.is_empty() {
            slow.splice(0..0, self.send_group(group).await);
        }
        for job in slow {
            self.settle(job).await;
        }
    }

    /// Sends a group; gives back those that have to be looked at one by one.
    async fn send_group(&mut self, group: Group) -> Vec<Job> {
        let (messages, order) = match group.messages(&self.shared, self.stream) {
            Ok(written) => written,
            Err(error) => {
                warn!(%error, "facts that cannot be written as headers");
                return group.jobs.into_iter().map(|member| member.job).collect();
            }
        };
        let count = messages.len() as u64;
        let published = self.shared.server.publish(messages).await;
        let Published::At(last) = published else {
            return group.jobs.into_iter().map(|member| member.job).collect();
        };
        let first = last + 1 - count;
        self.shared.replica.acknowledge(Source::Facts(self.stream), last);
        self.since_kept += count;
        let mut order = order.into_iter();
        for Member { job, sent, mut positions, repeats } in group.jobs {
            for n in sent {
                let position = first + order.next().unwrap_or_default();
                positions[n] = Some(position);
                self.own.add(position, &job.batch.facts[n], &job.bodies[n]);
            }
            self.shared.count(self.stream, repeats);
            drop(job.answer.send(Ok(positions.into_iter().flatten().collect())));
        }
        Vec::new()
    }

    /// Looks at one batch with all that is in the log, as often as it takes.
    async fn settle(&mut self, job: Job) {
        let outcome = self.decide(&job).await;
        drop(job.answer.send(outcome));
    }

    async fn decide(&mut self, job: &Job) -> Result<Vec<u64>, AppendError> {
        let mut pause = PAUSE;
        let mut was_sent = false;
        if let Some(positions) = self.at_once(job, &mut was_sent).await? {
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
    async fn at_once(
        &mut self,
        job: &Job,
        was_sent: &mut bool,
    ) -> Result<Option<Vec<u64>>, AppendError> {
        if job.batch.facts.len() > 1 {
            return Ok(None);
        }
        let known = self.know(std::slice::from_ref(job), Depth::All)?;
        let Some(known) = known.into_iter().next() else { return Ok(None) };
        let Verdict::Send(facts, guard @ Some(_)) = judge(&job.batch, &known) else {
            return Ok(None);
        };
        let end = self.own.end(known.applied);
        let (published, positions) = self.send_alone(job, &known, facts, guard, Some(end)).await?;
        *was_sent = matches!(published, Published::Unknown(_));
        Ok(matches!(published, Published::At(_)).then_some(positions))
    }

    /// One look at a batch, and what follows from it.
    async fn step(&mut self, job: &Job, was_sent: &mut bool) -> Result<Step, AppendError> {
        if let Err(error) = self.shared.sync(Source::Facts(self.stream), job.until).await {
            return Ok(Step::Again(error.to_string()));
        }
        self.glance.end();
        let known = self.know(std::slice::from_ref(job), Depth::All);
        // What comes now may take its time.
        self.glance.end();
        let known = known?;
        let known = known.into_iter().next().ok_or(Error::Closed)?;
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
        &mut self,
        job: &Job,
        known: &Known,
        facts: Vec<usize>,
        guard: Option<u64>,
        applied: Option<u64>,
    ) -> Result<(Published, Vec<u64>), AppendError> {
        let parts = [Part { job, sent: &facts, guard }];
        let (messages, order) = messages(&self.shared, self.stream, &parts, applied)
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let count = messages.len() as u64;
        let published = self.shared.server.publish(messages).await;
        let mut positions: Vec<_> =
            known.facts.iter().map(|known| known.as_ref().map(|known| known.0)).collect();
        if let Published::At(last) = published {
            self.shared.replica.acknowledge(Source::Facts(self.stream), last);
            self.since_kept += count;
            self.shared.count(self.stream, repeats(known));
            for (n, offset) in facts.into_iter().zip(order) {
                let position = last + 1 - count + offset;
                positions[n] = Some(position);
                self.own.add(position, &job.batch.facts[n], &job.bodies[n]);
            }
        }
        Ok((published, positions.into_iter().flatten().collect()))
    }

    /// A fence that does not hold: sets the guard if the lease is in force, else says why not.
    async fn fence(&mut self, job: &Job, known: &Known) -> Result<Option<AppendError>, Error> {
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
        Ok(Some(AppendError::Fenced { lease, epoch, current }))
    }

    /// What is known of batches that wait: at a glance, and anew where that would hold one up.
    fn look(&mut self, jobs: &[Job]) -> Result<Vec<Known>, Error> {
        let is_new = self.glance.is_over();
        let known = self.know(jobs, Depth::Ids)?;
        let is_held = |(job, known): (&Job, &Known)| {
            matches!(judge(&job.batch, known), Verdict::Fence | Verdict::No(_))
        };
        if is_new || !jobs.iter().zip(&known).any(is_held) {
            return Ok(known);
        }
        self.glance.end();
        self.know(jobs, Depth::Ids)
    }

    /// What the replica and our own last appends say of batches.
    fn know(&mut self, jobs: &[Job], depth: Depth) -> Result<Vec<Known>, Error> {
        let Self { shared, stream, own, glance, .. } = self;
        glance.know(&shared.replica, *stream, own, jobs, depth)
    }

    /// The server forgets ids after a while; until then the replica has to show what they were.
    async fn freshen(&mut self) {
        let source = Source::Facts(self.stream);
        if self.shared.synced_since(source) > remembered(source, &self.shared.options) / 4 {
            // Whether it succeeds is seen by what follows.
            drop(self.shared.sync(source, Instant::now() + Duration::from_secs(2)).await);
        }
    }

    /// Removes operational facts beyond the limit.
    async fn keep(&mut self) {
        if self.stream != Stream::Operational || self.since_kept < KEEP_EVERY {
            return;
        }
        self.since_kept = 0;
        let most = self.shared.options.retention.max_facts;
        if let Err(error) = self.shared.server.keep(self.stream, most).await {
            warn!(%error, "old operational facts stay for now");
        }
    }
}

/// A batch of its own or several that do not touch each other.
#[derive(Default)]
struct Group {
    jobs: Vec<Member>,
    fence: Option<(Fence, u64)>,
    subjects: HashSet<String>,
    ids: HashSet<String>,
    messages: usize,
    bytes: usize,
}

struct Member {
    job: Job,
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
        job: Job,
        known: &Known,
        sent: Vec<usize>,
        guard: Option<u64>,
    ) -> Result<(), Box<Job>> {
        let facts = || sent.iter().map(|n| &job.batch.facts[*n]);
        let bytes: usize = sent.iter().map(|n| job.bodies[*n].len()).sum();
        let fence = job.batch.fence.clone().zip(guard);
        let fits = self.jobs.is_empty()
            || fence == self.fence
                && self.messages + sent.len() < BATCH
                && self.bytes + bytes <= MAX_BATCH_BYTES
                // Each expects the log as it is before the batch.
                && !facts().any(|fact| {
                    fact.expect.is_some() && self.subjects.contains(&fact.subject)
                        || self.ids.contains(&fact.id)
                });
        if !fits {
            return Err(Box::new(job));
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
        self.jobs.push(Member { job, sent, positions, repeats: repeats(known) });
        Ok(())
    }

    fn messages(
        &self,
        shared: &Shared,
        stream: Stream,
    ) -> Result<(Vec<Message>, Vec<u64>), serde_json::Error> {
        let guard = self.fence.as_ref().map(|(_, guard)| *guard);
        let parts: Vec<Part<'_>> =
            self.jobs.iter().map(|Member { job, sent, .. }| Part { job, sent, guard }).collect();
        messages(shared, stream, &parts, None)
    }
}

/// A job and which of its facts are sent.
struct Part<'a> {
    job: &'a Job,
    sent: &'a [usize],
    guard: Option<u64>,
}

/// The messages of a batch, and which of them each fact is, from 0.
///
/// A message has room for one condition. Its own subject's comes first; the fence goes to the first
/// message with room, or to one of its own. Where that is not possible, or not worth a batch, the guard
/// holds because the stream as a whole is as the replica shows it: `applied`, if that may be asked for.
fn messages(
    shared: &Shared,
    stream: Stream,
    parts: &[Part<'_>],
    applied: Option<u64>,
) -> Result<(Vec<Message>, Vec<u64>), serde_json::Error> {
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
    let mut offset = 0;
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
            offset = 1;
        }
    }
    let order = (offset..messages.len() as u64).collect();
    Ok((messages, order))
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
