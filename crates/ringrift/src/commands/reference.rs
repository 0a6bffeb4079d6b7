//! `completions` and `man`: what shells and manual readers want, from the definitions of the commands.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{cli, console, exit::Outcome, launch};

/// The programs of this package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Program {
    /// This one
    #[value(name = "ringrift")]
    Ringrift,
    /// The one with the runbook's flags
    #[value(name = "launch_daemons")]
    LaunchDaemons,
}

impl Program {
    fn definition(self) -> clap::Command {
        match self {
            Self::Ringrift => cli::definition(),
            Self::LaunchDaemons => launch::definition(),
        }
    }
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell
    shell: Shell,
    /// Of which program
    #[arg(long = "of", value_enum, default_value_t = Program::Ringrift, value_name = "PROGRAM")]
    program: Program,
}

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Of which program
    #[arg(long = "of", value_enum, default_value_t = Program::Ringrift, value_name = "PROGRAM")]
    program: Program,
    /// Write one page for the program and one for each of its commands into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the script that completes our commands.
pub fn completions(args: &CompletionsArgs) -> Outcome {
    let mut definition = args.program.definition();
    let name = definition.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, name, &mut script);
    console::say(String::from_utf8(script)?.trim_end());
    Ok(())
}

/// Prints the manual page, or writes all of them.
pub fn man(args: &ManArgs) -> Outcome {
    let definition = args.program.definition();
    if let Some(folder) = &args.out {
        fs_err::create_dir_all(folder)?;
        let pages = format!("write manual pages into {}", folder.display());
        clap_mangen::generate_to(definition, folder).context(pages)?;
        return Ok(());
    }
    let mut page = Vec::new();
    Man::new(definition).render(&mut page)?;
    console::say(String::from_utf8(page)?.trim_end());
    Ok(())
}
