//! `cargo xtask`: check, tidy, docs, bench.
//!
//! Exit codes are those of the binary: 0 done, 1 a check failed, 2 usage.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool that talks to people")]

mod bed;
mod bench;
mod check;
mod docs;
mod fuzz;
mod release;
mod tidy;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  check               format, layout rules, lints, tests, documents, dependencies
  check --long NAMES  the long suites alone, e.g. --long faults,torch
  tidy                the layout rules alone
  docs                write the derived documents again
  docs --check        say which derived documents are stale
  bed                 several hosts with a loop over them on this machine, until Ctrl-C [--hosts N]
  release             an archive for machines without a toolchain, the cluster built in [--out FOLDER]
  bench cluster       log and transfers beside what is there without us [appends|growth|failover|transfers]
  bench latency       how long the loop leaves things lying [CONFIG [PROMOTIONS]]
  bench rules         the rules engine on one core beside the reference engines [CONFIG]...
  bench learn         network and training on one core beside PyTorch and burn [--peers A,B] [--kernels NAME]
  bench manager       the manager beside other supervisors [--rows A,B] [--peers A,B] [--rounds N] [--json]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workspace = Workspace::here();

    match arguments[..] {
        ["check"] => check::all(&workspace),
        ["check", "--long", names] => check::long(&workspace, names),
        ["tidy"] => report(tidy::run(&workspace)),
        ["docs"] => report(docs::write(&workspace)),
        ["docs", "--check"] => report(docs::verify(&workspace)),
        ["bed", ref words @ ..] => bed::run(&workspace, words).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }),
        ["release", ref words @ ..] => release::run(&workspace, words).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }),
        ["bench", ref words @ ..] => bench::run(&workspace, words).unwrap_or_else(|error| {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
