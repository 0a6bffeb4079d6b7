//! `config show` and `config check`.

use clap::{Args, Subcommand};
use serde_json::json;

use crate::{
    cli::{Places, Print, warn},
    console,
    exit::Outcome,
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print every key with its value and where that comes from
    Show {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        print: Print,
        /// Print only what somebody set
        #[arg(long)]
        set: bool,
    },
    /// Read everything and say what is wrong; exit code 2 if anything is
    Check {
        #[command(flatten)]
        places: Places,
        #[command(flatten)]
        print: Print,
    },
}

/// Runs the command.
pub fn run(args: &ConfigArgs) -> Outcome {
    match &args.action {
        Action::Show { places, print, set } => {
            let settings = places.settings(Vec::new())?;
            let shown = settings.all.values().filter(|key| !set || key.origin != "default");
            if print.json {
                let keys: Vec<_> = shown.collect();
                console::say_json(&json!({
                    "data": { "value": settings.data, "origin": settings.data_origin },
                    "file": settings.file,
                    "keys": keys,
                    "warnings": settings.warnings,
                }))?;
                return Ok(());
            }
            warn(&settings);
            console::say(&format!(
                "data = {}  ({})",
                settings.data.display(),
                settings.data_origin
            ));
            match &settings.file {
                Some(file) => console::say(&format!("file = {}", file.display())),
                None => console::say("file = none found"),
            }
            for key in shown {
                let value = match &key.value {
                    serde_json::Value::Null => "not set".to_owned(),
                    value => value.to_string(),
                };
                console::say(&format!("{} = {value}  ({})", key.key, key.origin));
            }
            Ok(())
        }
        Action::Check { places, print } => {
            let settings = places.settings(Vec::new())?;
            if print.json {
                let (file, warnings) = (&settings.file, &settings.warnings);
                console::say_json(&json!({ "ok": true, "file": file, "warnings": warnings }))?;
                return Ok(());
            }
            warn(&settings);
            let file = settings.file.as_ref().map_or_else(
                || "no file, defaults and environment".to_owned(),
                |file| file.display().to_string(),
            );
            console::say(&format!("the configuration is right ({file})"));
            Ok(())
        }
    }
}
