//! `release`: what is given to those who have no toolchain: one archive with the programs, everything built in, and
//! what belongs to them.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use crate::workspace::{Workspace, capture, succeed};

/// The programs of an archive.
const PROGRAMS: [&str; 2] = ["ringrift", "launch_daemons"];
/// Shells whose completions it has.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Builds with the feature `cluster`, packs, and tries what was packed. Gets nothing, or `--out` and a folder.
pub fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<ExitCode> {
    let out = match words {
        [] => workspace.root().join("target/releases"),
        ["--out", folder] => std::path::absolute(folder)?,
        _ => {
            eprintln!("usage: cargo xtask release [--out FOLDER]");
            return Ok(ExitCode::from(2));
        }
    };
    let name = name(workspace)?;
    let mut build = workspace.cargo(&["build", "--release", "--locked", "--package", "ringrift"]);
    build.args(["--features", "cluster"]);
    succeed(build)?;

    ensure!(
        name == self::name(workspace)?,
        "the sources changed while they were built: build again"
    );
    let room = tempfile::tempdir()?;
    stage(workspace, &room.path().join(&name))?;
    fs_err::create_dir_all(&out)?;
    let archive = out.join(format!("{name}.tar.gz"));
    pack(workspace, room.path(), &name, &archive)?;

    let unpacked = tempfile::tempdir()?;
    let mut unpack = workspace.command("tar");
    unpack.arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path());
    succeed(unpack)?;
    verify(workspace, &unpacked.path().join(&name))?;
    let mut sum = workspace.command("sha256sum");
    sum.current_dir(&out).arg(format!("{name}.tar.gz"));
    let sum = capture(sum)?;
    fs_err::write(out.join(format!("{name}.tar.gz.sha256")), &sum)?;
    println!("{}\n{}", archive.display(), sum.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Version, commit and machine: two archives of one name hold the same.
fn name(workspace: &Workspace) -> anyhow::Result<String> {
    let mut git = workspace.command("git");
    git.args(["describe", "--always", "--abbrev=12", "--dirty=-changed", "--exclude=*"]);
    let commit = capture(git)?;
    let mut rustc = workspace.command("rustc");
    rustc.arg("-vV");
    let rustc = capture(rustc)?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say for which machine it builds")?;
    Ok(format!("ringrift-{}-{}-{host}", env!("CARGO_PKG_VERSION"), commit.trim()))
}

/// Lays out what an archive holds.
fn stage(workspace: &Workspace, staged: &Path) -> anyhow::Result<()> {
    let bin = staged.join("bin");
    fs_err::create_dir_all(&bin)?;
    for program in PROGRAMS {
        let staged = bin.join(program);
        fs_err::copy(workspace.root().join("target/release").join(program), &staged)?;
        // Names of functions stay, for backtraces; lines would be two thirds of the archive.
        let mut strip = workspace.command("strip");
        strip.arg("--strip-debug").arg(staged);
        succeed(strip)?;
    }
    let ringrift = bin.join("ringrift");
    let completions = staged.join("completions");
    fs_err::create_dir_all(&completions)?;
    for shell in SHELLS {
        let mut print = workspace.command(&ringrift);
        print.args(["completions", shell]);
        fs_err::write(completions.join(format!("ringrift.{shell}")), capture(print)?)?;
    }
    let mut man = workspace.command(&ringrift);
    man.args(["man", "--out"]).arg(staged.join("man"));
    capture(man)?;
    fs_err::copy(workspace.root().join("README.md"), staged.join("README.md"))?;
    let docs = staged.join("docs");
    fs_err::create_dir_all(&docs)?;
    for page in fs_err::read_dir(workspace.root().join("docs"))? {
        let page = page?;
        if page.file_type()?.is_file() {
            fs_err::copy(page.path(), docs.join(page.file_name()))?;
        }
    }
    Ok(())
}

/// Equal files give an equal archive: no owners, the time of the commit, in order.
fn pack(workspace: &Workspace, room: &Path, name: &str, archive: &Path) -> anyhow::Result<()> {
    let mut git = workspace.command("git");
    git.args(["log", "-1", "--format=%ct"]);
    let time = capture(git)?;
    let mut tar = workspace.command("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--use-compress-program=gzip -n",
    ]);
    tar.arg(format!("--mtime=@{}", time.trim()));
    tar.arg("-cf").arg(archive).arg("-C").arg(room).arg(name);
    succeed(tar)
}

/// Tries the programs of an unpacked archive: they start, and the cluster is in them.
fn verify(workspace: &Workspace, unpacked: &Path) -> anyhow::Result<()> {
    for program in PROGRAMS {
        let mut ask = workspace.command(unpacked.join("bin").join(program));
        ask.arg("--version");
        let said = capture(ask)?;
        ensure!(
            said.contains("cluster"),
            "{program} was built without the cluster: {}",
            said.trim()
        );
    }
    Ok(())
}
