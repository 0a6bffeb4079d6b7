//! Fuzzing of the readers, on a stable toolchain.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::workspace::{Workspace, capture, succeed};

/// Targets in fuzz/, and how long each runs.
const TARGETS: [&str; 3] = ["states", "moves", "records"];
const SECONDS: u32 = 600;

/// Pinned: a newer one may build otherwise, and a check must not change by itself.
const VERSION: &str = "0.13.2";

/// Runs the targets one after another. What libFuzzer says goes into `target/fuzz/TARGET.log`.
pub fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let path = tool(workspace)?;
    let place = workspace.root().join("target/fuzz");
    fs_err::create_dir_all(&place)?;
    let cargo_fuzz = |words: &[&str]| {
        let mut command = workspace.cargo(&["fuzz"]);
        // Without a sanitizer: the code is safe, and a stable toolchain has none.
        command.args(words).args(["--sanitizer", "none", "--target-dir"]).arg(&place);
        // The flags that count branches are unstable.
        command.env("RUSTC_BOOTSTRAP", "1").env("PATH", &path).env_remove("CARGO_TARGET_DIR");
        command
    };
    succeed(cargo_fuzz(&["build"])).context("build the fuzz targets (they need a C++ compiler)")?;
    for target in TARGETS {
        println!("fuzz {target}: {SECONDS} s, log in target/fuzz/{target}.log");
        let corpus = place.join("corpus").join(target);
        fs_err::create_dir_all(&corpus)?;
        let mut command = cargo_fuzz(&["run", target]);
        command.arg(corpus).arg("--").arg(format!("-max_total_time={SECONDS}"));
        command.arg("-rss_limit_mb=2048");
        command.arg(format!("-artifact_prefix={}/{target}-", place.display()));
        println!("fuzz {target}: {}", logged(command, &place.join(format!("{target}.log")))?);
    }
    Ok(())
}

/// Runs to the end with its output in a file; gives what libFuzzer says last, or an error with the end of the file.
fn logged(mut command: Command, file: &Path) -> anyhow::Result<String> {
    let log = fs_err::File::create(file)?;
    let errors = log.file().try_clone()?;
    let status = command.stdout(log.into_parts().0).stderr(errors).status()?;
    let bytes = fs_err::read(file)?;
    let text = String::from_utf8_lossy(&bytes);
    let done = text.lines().rfind(|line| line.starts_with("Done "));
    match done {
        Some(done) if status.success() => Ok(done.to_owned()),
        _ => {
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(30)..].join("\n");
            bail!("it ended with {status}; the end of {}:\n{end}", file.display())
        }
    }
}

/// The search path with cargo-fuzz on it, which is installed into target/tools if it is nowhere.
fn tool(workspace: &Workspace) -> anyhow::Result<OsString> {
    let tools = workspace.root().join("target/tools");
    let found = std::env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(tools.join("bin")).chain(std::env::split_paths(&found));
    let path = std::env::join_paths(places).context("put target/tools/bin on the search path")?;
    let mut version = workspace.cargo(&["fuzz", "--version"]);
    version.env("PATH", &path);
    if capture(version).is_ok_and(|found| found.trim() == format!("cargo-fuzz {VERSION}")) {
        return Ok(path);
    }
    println!("installing cargo-fuzz {VERSION} into target/tools (about a minute, once)");
    let mut install = workspace.cargo(&["install", "--quiet", "--locked", "--debug", "--force"]);
    install.args(["cargo-fuzz", "--version", VERSION, "--root"]).arg(&tools);
    install.env_remove("CARGO_TARGET_DIR");
    succeed(install).context("install cargo-fuzz")?;
    Ok(path)
}
