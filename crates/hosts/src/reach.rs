//! How a command gets to a machine.

use std::time::Duration;

use crate::run::{Limits, Output, RunError, run};

/// A machine that does not answer within this is not reached.
const CONNECT: Duration = Duration::from_secs(10);
/// What `ssh` ends with when it did not get as far as the command.
const NOT_REACHED: &str = "exit code 255";

/// How commands get to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// They run on this one.
    Here,
    /// The system's `ssh` takes them there.
    Ssh(Ssh),
}

impl Reach {
    /// Runs a command there.
    ///
    /// # Errors
    /// [`RunError`]; [`RunError::Unreachable`] if it did not get there.
    pub async fn run(&self, command: &[String], limits: Limits) -> Result<Output, RunError> {
        let ssh = match self {
            Self::Here => return run(command, limits).await,
            Self::Ssh(ssh) => ssh,
        };
        match run(&ssh.command(command)?, limits).await {
            Err(RunError::Failed { how, said, .. }) if how == NOT_REACHED => {
                Err(RunError::Unreachable { destination: ssh.destination.clone(), said })
            }
            Err(RunError::Failed { how, said, .. }) => {
                let program = command.first().cloned().unwrap_or_default();
                let program = format!("{program} on {}", ssh.destination);
                Err(RunError::Failed { program, how, said })
            }
            ended => ended,
        }
    }
}

/// A machine as `ssh` finds it. Keys, ports, jumps and known hosts are the affair of its own configuration:
/// what works as `ssh -o BatchMode=yes DESTINATION true` for the same user works here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    destination: String,
    program: String,
}

/// This is no machine that `ssh` could be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a machine as ssh knows it: HOST or USER@HOST; its port belongs into the configuration of ssh"
)]
pub struct BadDestination;

impl Ssh {
    /// The machine that `ssh` calls so.
    ///
    /// # Errors
    /// It is no plain word, holds a password, or would be taken for an option.
    pub fn to(destination: &str) -> Result<Self, BadDestination> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "@._-:%".contains(c);
        let (user, host) = destination.split_once('@').unwrap_or(("nobody", destination));
        let bad = host.is_empty()
            || host.contains('@')
            || [user, host].iter().any(|part| part.starts_with('-') || part.is_empty())
            // A password, which no argument may hold.
            || user.contains(':')
            || !destination.chars().all(plain)
            || destination.len() > 255;
        if bad {
            return Err(BadDestination);
        }
        Ok(Self { destination: destination.to_owned(), program: "ssh".to_owned() })
    }

    /// The same by another program that takes the arguments of `ssh`.
    #[must_use]
    pub fn by(self, program: impl Into<String>) -> Self {
        Self { program: program.into(), ..self }
    }

    /// What is run here, so that `command` runs there.
    ///
    /// # Errors
    /// An argument cannot be quoted for the shell of the other machine, which `ssh` always asks.
    pub fn command(&self, command: &[String]) -> Result<Vec<String>, RunError> {
        let Some(program) = command.first() else { return Err(RunError::Nothing) };
        let line = shlex::try_join(command.iter().map(String::as_str)).map_err(|error| {
            RunError::Unquotable { program: program.clone(), what: error.to_string() }
        })?;
        let connect = format!("ConnectTimeout={}", CONNECT.as_secs());
        let options = [
            // Nobody is there to answer a question.
            "BatchMode=yes",
            // Who is not known by its key is not trusted with a command.
            "StrictHostKeyChecking=yes",
            connect.as_str(),
            "ConnectionAttempts=1",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            // Nothing but the command goes through, and nothing stays behind.
            "ClearAllForwardings=yes",
            "ForwardAgent=no",
            "ForwardX11=no",
            "PermitLocalCommand=no",
            "ControlMaster=no",
        ];
        let mut words = vec![self.program.clone(), "-T".to_owned()];
        words.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
        words.extend(["--".to_owned(), self.destination.clone(), line]);
        Ok(words)
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here => f.write_str("here"),
            Self::Ssh(ssh) => write!(f, "by ssh on {}", ssh.destination),
        }
    }
}
