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
    let mut definition = shown(&args.program.definition());
    let name = definition.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, name, &mut script);
    console::say(String::from_utf8(script)?.trim_end());
    Ok(())
}

/// The same without hidden commands: the generator knows no such thing.
fn shown(command: &clap::Command) -> clap::Command {
    // Names live as long as the program, which ends at once.
    let name: &'static str = command.get_name().to_owned().leak();
    let mut copy = clap::Command::new(name)
        .groups(command.get_groups().cloned())
        .args(command.get_arguments().cloned())
        .subcommands(command.get_subcommands().filter(|inner| !inner.is_hide_set()).map(shown));
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    copy
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_offers_no_hidden_command_and_every_other() {
        for program in [Program::Ringrift, Program::LaunchDaemons] {
            let definition = program.definition();
            let mut copy = shown(&definition);
            copy.build();
            let names = |command: &clap::Command, hidden: bool| -> Vec<String> {
                let inner = command.get_subcommands().filter(|inner| inner.is_hide_set() == hidden);
                inner.map(|inner| inner.get_name().to_owned()).collect()
            };
            let offered = names(&copy, false);
            for name in names(&definition, false) {
                assert!(offered.contains(&name), "{name}");
            }
            for name in names(&definition, true) {
                assert!(copy.find_subcommand(&name).is_none(), "{name}");
            }
        }
        assert!(cli::definition().get_subcommands().any(clap::Command::is_hide_set));
    }
}
