//! What lies in a far store beside the artefacts: the log, so that all can be made again from nothing else.
//!
//! ```text
//! blobs/ab/abcd...      an artefact, by the hash of its bytes
//! facts/abcd...         a segment: facts of the pipeline in their order, gzip JSON lines
//! manifests/N/abcd...   a manifest: the segments that hold the first N facts
//! head                  the pointer to the newest manifest; the only object that is ever replaced
//! ```
//!
//! A manifest is written after all that it names was read back whole, and the pointer after the manifest. So
//! whoever is killed in between leaves the store as it was, and objects that the next one finds there. Two that
//! write at once cannot spoil it: both write beginnings of one log, and the pointer is replaced only by whoever goes
//! on from what it says. The other one is told, and looks again.
//!
//! Segments are not rewritten. Small ones at the end are written again as one when they fill a large one; the
//! small ones stay, unnamed by later manifests, so the facts take at most twice their room.

use std::io::{Read as _, Write as _};

use courier::{Courier, Fact, NewFact, Stream};
use depot::{
    Hash,
    far::{Far, FarError, FarResult, Watch},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use ringrift_pipeline::BlobHash;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const POINTER: &str = "head";
const FACTS: &str = "facts";
const MANIFESTS: &str = "manifests";

/// Version of all this.
const FORMAT: u32 = 1;
/// Facts of a segment that is not written again.
pub(super) const FULL: u64 = 4096;
/// Small segments that are named at most before they become one.
const MOST_SMALL: usize = 128;
/// Bytes of facts as text after which a segment ends.
const SEGMENT_BYTES: usize = 8 << 20;
/// Most bytes of a segment as text that are read: a full one, and the largest batch behind its end.
const MOST_UNPACKED: u64 = 64 << 20;
/// Most bytes of other objects that are read.
const MOST_SMALL_OBJECT: u64 = 64 << 20;
/// Facts that are read from a log at a time.
const PAGE: usize = 1000;

/// What the first facts of a log say, in their order, whatever their positions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// How many there are.
    pub facts: u64,
    /// A hash over all of them; empty without facts.
    pub digest: String,
}

/// A fact without its position, as it lies in a segment.
type Line = (String, String, i64, String, Option<String>, Value);

impl History {
    /// One more fact.
    pub fn add(&mut self, fact: &Fact) {
        let said = line_of(fact);
        self.digest = Hash::of(format!("{}{said}", self.digest).as_bytes()).to_string();
        self.facts += 1;
    }
}

fn line_of(fact: &Fact) -> Value {
    serde_json::json!([fact.id, fact.subject, fact.time_ms, fact.source, fact.cause, fact.body])
}

/// The same fact for another log; where it lands is up to that one.
pub fn again(fact: &Fact) -> NewFact {
    let new = NewFact::new(&fact.id, &fact.subject, &fact.source, fact.body.clone());
    match &fact.cause {
        Some(cause) => new.caused_by(cause),
        None => new,
    }
}

/// What a far store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// How many facts are here.
    pub facts: u64,
    /// What they say, see [`History`].
    pub digest: String,
    /// When it was written, ms since the Unix epoch, by the clock of whoever wrote it.
    pub written_ms: i64,
    /// Roles of the artefacts that lie here as far as the facts go, see [`super::ORIGINALS`].
    pub roles: Vec<String>,
    /// Artefacts of those roles that were lost or out of reach when they were to be copied.
    pub lacks: Vec<BlobHash>,
    /// The facts, in their order.
    pub segments: Vec<Segment>,
}

/// A part of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name.
    pub hash: Hash,
    /// Its size, bytes.
    pub bytes: u64,
    /// Facts in it.
    pub facts: u64,
}

impl Manifest {
    /// That of an empty store.
    pub(crate) fn empty(roles: Vec<String>) -> Self {
        Self {
            format: FORMAT,
            facts: 0,
            digest: String::new(),
            written_ms: 0,
            roles,
            lacks: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// What it holds of a log.
    pub fn history(&self) -> History {
        History { facts: self.facts, digest: self.digest.clone() }
    }

    /// How many of the last facts, which lie in small segments, are to be written again together with
    /// `fresh` new ones.
    pub(crate) fn to_merge(&self, fresh: u64) -> u64 {
        let small = self.segments.iter().rev().take_while(|segment| segment.facts < FULL);
        let (mut count, mut facts) = (0, 0);
        for segment in small {
            count += 1;
            facts += segment.facts;
        }
        if count >= MOST_SMALL || (count > 0 && facts + fresh >= FULL) { facts } else { 0 }
    }

    /// Takes away the last segments, those that hold so many facts.
    pub(crate) fn cut(&mut self, facts: u64) -> Vec<Segment> {
        let (mut left, mut keep) = (facts, self.segments.len());
        while left > 0 && keep > 0 {
            keep -= 1;
            left = left.saturating_sub(self.segments[keep].facts);
        }
        self.segments.split_off(keep)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pointer {
    facts: u64,
    manifest: Hash,
}

/// Which manifest is the newest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(Pointer);

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.0.facts, self.0.manifest)
    }
}

impl std::str::FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (facts, manifest) = text.split_once('/')?;
            Some(Pointer { facts: facts.parse().ok()?, manifest: manifest.parse().ok()? })
        };
        read().map(Self).ok_or_else(|| {
            format!("'{text}' is no manifest: allowed is FACTS/HASH, as `ringrift store status` shows it")
        })
    }
}

/// The log in a far store.
#[derive(Debug, Clone)]
pub struct Archive(Far);

impl Archive {
    /// That of a store.
    pub fn of(far: &Far) -> Self {
        Self(far.clone())
    }

    /// The newest manifest; none if nobody ever wrote one.
    ///
    /// # Errors
    /// The pointer or its manifest is damaged or lost: see [`Archive::older`].
    pub fn newest(&self, watch: Watch<'_>) -> FarResult<Option<(Mark, Manifest)>> {
        let Some(mark) = self.mark(watch)? else { return Ok(None) };
        let manifest = self.manifest(&mark, watch)?;
        Ok(Some((mark, manifest)))
    }

    /// What the pointer says.
    pub fn mark(&self, watch: Watch<'_>) -> FarResult<Option<Mark>> {
        let Some(text) = self.0.pointer(POINTER, MOST_SMALL_OBJECT, watch)? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&text).map_err(|error| not_understood(POINTER, error))?;
        Ok(Some(Mark(read)))
    }

    /// Reads a manifest.
    pub fn manifest(&self, Mark(pointer): &Mark, watch: Watch<'_>) -> FarResult<Manifest> {
        let folder = folder(pointer.facts);
        let text = self.0.read_from(&folder, &pointer.manifest, MOST_SMALL_OBJECT, watch)?;
        let key = format!("{folder}/{}", pointer.manifest);
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| not_understood(&key, error))?;
        if manifest.format == FORMAT {
            return Ok(manifest);
        }
        Err(FarError::Refused(format!(
            "{key} has the format {}, and this program knows {FORMAT}: a newer one wrote it",
            manifest.format
        )))
    }

    /// All manifests there are, whole or not, the newest first.
    pub fn older(&self) -> FarResult<Vec<Mark>> {
        let listed = self.0.list(MANIFESTS)?;
        let mut marks: Vec<Mark> = listed
            .iter()
            .filter_map(|(key, _)| key.strip_prefix("manifests/")?.parse().ok())
            .collect();
        marks.sort_by_key(|mark| std::cmp::Reverse(mark.0.facts));
        Ok(marks)
    }

    /// The facts of a segment; their positions are 0.
    pub fn facts(&self, segment: &Segment, watch: Watch<'_>) -> FarResult<Vec<Fact>> {
        let packed = self.0.read_from(FACTS, &segment.hash, segment.bytes, watch)?;
        let key = format!("{FACTS}/{}", segment.hash);
        let mut text = String::new();
        GzDecoder::new(&packed[..])
            .take(MOST_UNPACKED)
            .read_to_string(&mut text)
            .map_err(|error| not_understood(&key, error))?;
        let fact = |line: &str| {
            let (id, subject, time_ms, source, cause, body): Line = serde_json::from_str(line)?;
            Ok(Fact { position: 0, id, subject, time_ms, source, cause, body })
        };
        let facts: serde_json::Result<Vec<Fact>> = text.lines().map(fact).collect();
        let facts = facts.map_err(|error| not_understood(&key, error))?;
        if facts.len() as u64 == segment.facts {
            return Ok(facts);
        }
        let what = format!("it has {} facts, not {}", facts.len(), segment.facts);
        Err(FarError::Damaged { key, what })
    }

    /// Writes facts behind the segments of a manifest, the manifest that names all, and the pointer to it, over the
    /// one that it goes on from. None = from the beginning, over nothing or what is lost or damaged.
    ///
    /// Everything else that it says must be so already: the artefacts are there.
    ///
    /// # Errors
    /// [`FarError::Away`] if the pointer is another one by now.
    pub(crate) fn write(
        &self,
        from: Option<&Mark>,
        mut manifest: Manifest,
        facts: &[Fact],
        watch: Watch<'_>,
    ) -> FarResult<(Mark, Manifest)> {
        // Before the pointer is read: so what is replaced in the end is what is read here.
        let version = self.0.version(POINTER)?;
        if !self.is_still(from, watch)? {
            return Err(outrun());
        }
        let mut rest = facts;
        while !rest.is_empty() {
            let (packed, count) = pack(rest)?;
            let hash = self.0.put_into(FACTS, &packed, watch)?;
            let bytes = packed.len() as u64;
            manifest.segments.push(Segment { hash, bytes, facts: count as u64 });
            rest = &rest[count..];
        }
        let text =
            serde_json::to_vec(&manifest).map_err(|error| not_understood(MANIFESTS, error))?;
        let hash = self.0.put_into(&folder(manifest.facts), &text, watch)?;
        let pointer = Pointer { facts: manifest.facts, manifest: hash };
        let text = serde_json::to_vec(&pointer).map_err(|error| not_understood(POINTER, error))?;
        if !self.0.point(POINTER, version.as_ref(), &text, watch)? {
            return Err(outrun());
        }
        Ok((Mark(pointer), manifest))
    }

    /// Whether the pointer is the one that somebody goes on from.
    fn is_still(&self, from: Option<&Mark>, watch: Watch<'_>) -> FarResult<bool> {
        let now = match from {
            Some(_) => self.mark(watch),
            // Whoever begins anew goes over a pointer to what is lost or damaged, and over no other.
            None => self.newest(watch).map(|found| found.map(|(mark, _)| mark)),
        };
        match now {
            Ok(now) => Ok(now.as_ref() == from),
            Err(error) if error.is_loss() => Ok(from.is_none()),
            Err(error) => Err(error),
        }
    }
}

/// Somebody else may lead by now, and have written: whoever is told looks again first.
fn outrun() -> FarError {
    FarError::Away("somebody else wrote there meanwhile".to_owned())
}

fn folder(facts: u64) -> String {
    format!("{MANIFESTS}/{facts:012}")
}

fn not_understood(key: &str, error: impl std::fmt::Display) -> FarError {
    FarError::Damaged { key: key.to_owned(), what: format!("it is not understood: {error}") }
}

/// A segment of the first of these facts, and how many they are.
fn pack(facts: &[Fact]) -> FarResult<(Vec<u8>, usize)> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    let (mut count, mut bytes) = (0, 0);
    for fact in facts {
        if count as u64 == FULL || bytes >= SEGMENT_BYTES {
            break;
        }
        let line = line_of(fact).to_string();
        writeln!(packed, "{line}")?;
        bytes += line.len();
        count += 1;
    }
    Ok((packed.finish()?, count))
}

/// Where in a log the facts of a history end; none if it does not begin with them.
pub(crate) async fn end_in(
    log: &Courier,
    history: &History,
    mut go_on: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Option<u64>> {
    let (mut seen, mut at) = (History::default(), 0);
    while seen.facts < history.facts {
        go_on()?;
        let facts = log.read(Stream::Pipeline, at, PAGE).await?;
        if facts.is_empty() {
            return Ok(None);
        }
        for fact in facts.iter().take(usize::try_from(history.facts - seen.facts)?) {
            seen.add(fact);
            at = fact.position;
        }
    }
    Ok((seen == *history).then_some(at))
}

/// Facts that [`next_facts`] gives at most.
pub(crate) const MOST_FACTS: usize = 4 * PAGE;

/// The next facts of a log up to a position.
pub(crate) async fn next_facts(
    log: &Courier,
    after: u64,
    through: u64,
) -> anyhow::Result<Vec<Fact>> {
    let mut found = Vec::new();
    let mut at = after;
    while found.len() < MOST_FACTS {
        let mut facts = log.read(Stream::Pipeline, at, PAGE).await?;
        facts.retain(|fact| fact.position <= through);
        let Some(last) = facts.last() else { break };
        at = last.position;
        found.extend(facts);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{ops::ControlFlow, str::FromStr as _};

    use super::*;
    use crate::far::testing::{Slow, folder_store};

    fn all(_: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn facts(range: std::ops::Range<u64>) -> Vec<Fact> {
        range
            .map(|n| Fact {
                position: n * 2,
                id: format!("id-{n}"),
                subject: "s.t".into(),
                time_ms: i64::try_from(n).unwrap(),
                source: "test".into(),
                cause: (n % 2 == 0).then(|| "cause".into()),
                body: serde_json::json!({ "n": n, "x": 0.1, "y": 1e300 }),
            })
            .collect()
    }

    fn grown(mut manifest: Manifest, facts: &[Fact]) -> Manifest {
        let mut history = manifest.history();
        for fact in facts {
            history.add(fact);
        }
        (manifest.facts, manifest.digest) = (history.facts, history.digest);
        manifest
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let (_dir, far) = folder_store();
        let archive = Archive::of(&far);
        assert_eq!(archive.newest(&mut all).unwrap(), None);
        let first = facts(0..5000);
        let manifest = grown(Manifest::empty(Vec::new()), &first);
        let (mark, manifest) = archive.write(None, manifest, &first, &mut all).unwrap();
        assert_eq!(manifest.segments.iter().map(|s| s.facts).collect::<Vec<_>>(), [FULL, 904]);
        assert_eq!(archive.newest(&mut all).unwrap(), Some((mark.clone(), manifest.clone())));

        let (mut read, mut history) = (Vec::new(), History::default());
        for segment in &manifest.segments {
            read.extend(archive.facts(segment, &mut all).unwrap());
        }
        for fact in &read {
            history.add(fact);
        }
        assert_eq!(history, manifest.history());
        assert_eq!(read[7], Fact { position: 0, ..first[7].clone() });

        let more = facts(5000..5010);
        let grown = grown(manifest, &more);
        let (newer, manifest) = archive.write(Some(&mark), grown, &more, &mut all).unwrap();
        assert_eq!(manifest.segments.len(), 3);
        assert_eq!(archive.older().unwrap(), [newer, mark.clone()]);
        assert_eq!(Mark::from_str(&mark.to_string()), Ok(mark));
        assert!(Mark::from_str("7").unwrap_err().contains("FACTS/HASH"));
    }

    #[test]
    fn whoever_slept_while_another_wrote_is_told_and_goes_over_nothing() {
        let (slow, far) = Slow::new();
        let archive = Archive::of(&far);
        let write = |from: Option<&Mark>, manifest: &Manifest, end: u64| {
            let more = facts(manifest.facts..end);
            Archive::of(&far).write(from, grown(manifest.clone(), &more), &more, &mut all)
        };
        let told = |written: FarResult<(Mark, Manifest)>| match written {
            Err(FarError::Away(what)) => assert!(what.contains("somebody else wrote"), "{what}"),
            other => panic!("{other:?}"),
        };
        let newest = || archive.newest(&mut all).unwrap().unwrap();
        // Both begin; then both go on. The newer one writes just before the older one's pointer does.
        let (mut mark, mut manifest) = (None, Manifest::empty(Vec::new()));
        for end in [10, 20] {
            let newer = Archive::of(&far);
            let (from, more) = (mark.clone(), facts(manifest.facts..end));
            let now = grown(manifest.clone(), &more);
            slow.before_the_next(move || {
                newer.write(from.as_ref(), now, &more, &mut all).unwrap();
            });
            told(write(mark.as_ref(), &manifest, end - 5));
            assert_eq!(newest().1.facts, end);
            // It resumes still later, and has still not looked.
            told(write(mark.as_ref(), &manifest, end + 5));
            assert_eq!(newest().1.facts, end);
            let found = newest();
            (mark, manifest) = (Some(found.0), found.1);
        }
        write(mark.as_ref(), &manifest, 25).unwrap();
        assert_eq!(newest().1.facts, 25);
    }

    #[test]
    fn what_is_lost_or_damaged_is_gone_over_and_what_is_whole_is_not() {
        let (dir, far) = folder_store();
        let archive = Archive::of(&far);
        let some = facts(0..3);
        let whole = grown(Manifest::empty(Vec::new()), &some);
        let write =
            |from: Option<&Mark>| archive.write(from, whole.clone(), &some, &mut all).map(|_| ());
        write(None).unwrap();
        let mark = archive.mark(&mut all).unwrap().unwrap();
        assert!(matches!(write(None), Err(FarError::Away(_))), "somebody was faster");
        let head = dir.path().join("head");
        let manifest = dir.path().join(format!("manifests/{:012}/{}", 3, mark.0.manifest));
        for (path, text) in
            [(&head, Some("{\"facts\":")), (&manifest, Some("{}")), (&manifest, None)]
        {
            fs_err::remove_file(path).unwrap();
            if let Some(text) = text {
                fs_err::write(path, text).unwrap();
            }
            // Whoever has seen it whole looks again first.
            if path == &head {
                assert!(matches!(write(Some(&mark)), Err(FarError::Away(_))));
            }
            write(None).unwrap();
            assert_eq!(archive.newest(&mut all).unwrap().unwrap().0, mark);
        }
        fs_err::remove_file(&head).unwrap();
        assert!(matches!(write(Some(&mark)), Err(FarError::Away(_))));
        write(None).unwrap();
    }

    #[test]
    fn small_segments_become_one_when_they_fill_one() {
        let check = |sizes: &[u64], fresh: u64, expected: u64| {
            let mut manifest = Manifest::empty(Vec::new());
            let segment = |facts: &u64| Segment { hash: Hash::of(b""), bytes: 1, facts: *facts };
            manifest.segments = sizes.iter().map(segment).collect();
            assert_eq!(manifest.to_merge(fresh), expected, "{sizes:?} and {fresh}");
            let cut = manifest.cut(expected);
            assert_eq!(cut.iter().map(|segment| segment.facts).sum::<u64>(), expected);
            assert!(expected == 0 || manifest.segments.iter().all(|s| s.facts == FULL));
        };
        check(&[], 9000, 0);
        check(&[FULL], 10, 0);
        check(&[FULL, 100, 200], 10, 0);
        check(&[FULL, 100, 200], FULL - 300, 300);
        check(&[1; MOST_SMALL - 1], 1, 0);
        check(&[1; MOST_SMALL], 1, MOST_SMALL as u64);
    }

    #[test]
    fn what_is_half_written_or_foreign_is_named() {
        let (dir, far) = folder_store();
        let archive = Archive::of(&far);
        let some = facts(0..3);
        let manifest = grown(Manifest::empty(Vec::new()), &some);
        let (mark, manifest) = archive.write(None, manifest, &some, &mut all).unwrap();
        let spoil = |key: &str, text: &str| {
            fs_err::remove_file(dir.path().join(key)).unwrap();
            fs_err::write(dir.path().join(key), text).unwrap();
        };
        let whole = fs_err::read_to_string(dir.path().join("head")).unwrap();
        spoil("head", &whole[..20]);
        let error = archive.newest(&mut all).unwrap_err().to_string();
        assert!(error.starts_with("head in the far store is damaged"), "{error}");
        assert_eq!(archive.older().unwrap(), std::slice::from_ref(&mark));
        assert_eq!(archive.manifest(&mark, &mut all).unwrap(), manifest);
        spoil("head", &whole);
        spoil(&format!("manifests/{:012}/{}", 3, mark.0.manifest), "{}");
        let error = archive.newest(&mut all).unwrap_err();
        assert!(matches!(error, FarError::Damaged { .. }), "{error}");
        spoil(&format!("facts/{}", manifest.segments[0].hash), "rubbish");
        let error = archive.facts(&manifest.segments[0], &mut all).unwrap_err();
        assert!(matches!(error, FarError::Damaged { .. }), "{error}");
    }
}
