//! `cluster leave`: a node goes on alone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use courier::{AppendError, Embedded, Options, Outbox, Stream};

use super::{super::offline::block_on, copy, moved::end_what_held};
use crate::{
    cli::Place,
    console,
    data_dir::DataDir,
    exit::{Failure, OrExit as _, Outcome},
    membership::Membership,
};

/// What stays of the cluster, for whoever wants to look.
const LEFT: &str = "left-cluster";

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// The copy of the log to go on from [default: replica/replica.sqlite of the directory], e.g. what this node kept
    /// when the servers came back with less
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Runs the command.
///
/// Cut off at any moment, it is called again: until the membership is put aside the directory is the node that
/// it was, and by then the log of its own is whole.
pub fn leave(args: &LeaveArgs) -> Outcome {
    let dir = args.place.existing()?;
    let _lock = dir.lock().or_usage()?;
    let Some(membership) = Membership::of(&dir).or_usage()? else {
        // An earlier call may have been cut off after the membership was put aside.
        if let Some(left) = last_left(&dir).filter(|_| parts(&dir).iter().any(|part| part.exists()))
        {
            put_aside(&dir, &left)?;
            console::say(&format!("{} is alone", dir.root().display()));
            return Ok(());
        }
        return Err(Failure::usage(anyhow!("{} is no node of a cluster", dir.root().display())));
    };
    let aside = dir.root().join("facts-leaving.sqlite");
    remove(&aside)?;
    let (facts, handed_in) = block_on(copied(&dir, args.from.as_deref(), &aside))?;
    for end in ["-wal", "-shm"] {
        let beside = dir.root().join(format!("facts-leaving.sqlite{end}"));
        if beside.exists() {
            let sentence = "the log of its own is not closed; call this again";
            return Err(anyhow!(sentence).context(beside.display().to_string()).into());
        }
    }
    fs_err::rename(&aside, dir.facts())?;
    let left = (1..u32::MAX).map(|number| left_of(&dir, number)).find(|left| !left.exists());
    put_aside(&dir, &left.context("name what is left")?)?;
    console::say(&format!(
        "{} is alone, with {facts} facts of the {membership}",
        dir.root().display()
    ));
    if handed_in > 0 {
        console::say(&format!("  {handed_in} of them were in its outbox"));
    }
    console::say("  here    ringrift up");
    console::say(
        "  others  a cluster that lives on goes on without it: `ringrift node remove` there",
    );
    Ok(())
}

/// Makes a log of its own from what this node knows, and from what it could not hand in.
async fn copied(dir: &DataDir, from: Option<&Path>, to: &Path) -> Result<(u64, u64), Failure> {
    let replica = dir.replica().join("replica.sqlite");
    let known = Embedded::open_read_only(from.unwrap_or(&replica));
    let known = known.context("open this node's copy of the log").or_usage()?;
    let own = Embedded::open(to, Options::default())?;
    let mut facts = 0;
    for stream in Stream::ALL {
        facts += copy(&known, &own, stream).await?;
    }
    let mut handed_in = 0;
    if dir.outbox().exists() {
        // What waits there stays there: this log is not the node's yet.
        for kept in Outbox::open(&dir.outbox())?.all().await? {
            match own.append(kept.stream, kept.batch, kept.time_ms).await {
                Ok(_) => handed_in += 1,
                Err(AppendError::Failed(error)) => return Err(error.into()),
                Err(refusal) => {
                    console::complain(&format!("what waited in the outbox is refused: {refusal}"));
                }
            }
        }
    }
    end_what_held(&own, "cluster leave").await?;
    Ok((facts + handed_in, handed_in))
}

/// Where the parts of the cluster are put that was left, of the second one that was, and so on.
fn left_of(dir: &DataDir, number: u32) -> PathBuf {
    match number {
        1 => dir.root().join(LEFT),
        more => dir.root().join(format!("{LEFT}-{more}")),
    }
}

/// The last of them.
fn last_left(dir: &DataDir) -> Option<PathBuf> {
    (1..u32::MAX).map(|number| left_of(dir, number)).take_while(|left| left.exists()).last()
}

/// What made it a node; the membership first, which decides.
fn parts(dir: &DataDir) -> Vec<PathBuf> {
    let mut parts = vec![dir.membership(), dir.replica(), dir.cluster(), dir.outbox()];
    // An outbox that was not closed in order has two more files.
    parts.extend(["-wal", "-shm"].map(|end| dir.root().join(format!("outbox.sqlite{end}"))));
    parts
}

/// Moves it out of the way.
fn put_aside(dir: &DataDir, left: &Path) -> anyhow::Result<()> {
    fs_err::create_dir_all(left)?;
    for part in parts(dir) {
        if let Some(name) = part.file_name()
            && part.exists()
        {
            fs_err::rename(&part, left.join(name))?;
        }
    }
    Ok(())
}

/// Removes a log that nobody needs, as what an earlier call began.
pub(super) fn remove(log: &Path) -> anyhow::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut name = log.as_os_str().to_owned();
        name.push(end);
        let file = PathBuf::from(name);
        if file.exists() {
            fs_err::remove_file(file)?;
        }
    }
    Ok(())
}
