//! `why`: what keeps a config from going on, or a node from working.

use clap::Args;
use ringrift_pipeline::Config;
use serde_json::Value;

use super::status::PATIENCE;
use crate::{
    cli::{Place, Print},
    console,
    control::{Request, ask},
    exit::Outcome,
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Config of the game, e.g. `hex8_2p`
    #[arg(required_unless_present = "node")]
    config: Option<Config>,
    /// Say of a node what it does or why it does nothing, as `ringrift nodes` names it; without a name of this one
    #[arg(long, value_name = "NAME", num_args = 0..=1, conflicts_with = "config")]
    #[expect(
        clippy::option_option,
        reason = "what clap makes of a flag whose value may be left out"
    )]
    node: Option<Option<String>>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    print: Print,
}

/// Runs the command.
pub fn run(args: &WhyArgs) -> Outcome {
    let dir = args.place.dir()?;
    let request = match (&args.config, &args.node) {
        (Some(config), _) => Request::Why { config: config.to_string() },
        (None, node) => Request::WhyNode { node: node.clone().flatten() },
    };
    let answer = ask(&dir, &request, PATIENCE)?;
    if args.print.json {
        console::say_json(&answer)?;
        return Ok(());
    }
    for sentence in answer.as_array().map_or(&[][..], Vec::as_slice) {
        console::say(&line(sentence));
    }
    Ok(())
}

fn line(sentence: &Value) -> String {
    let text = |key: &str| sentence[key].as_str().filter(|text| !text.is_empty());
    let mark = if sentence["open"].as_bool().unwrap_or(true) { "-" } else { "!" };
    let mut line = format!(
        "{mark} {}: {}",
        text("gate").unwrap_or("loop"),
        text("reason").unwrap_or("nothing is known")
    );
    if let Some(needs) = text("needs") {
        line.push_str("; ");
        line.push_str(needs);
    }
    line
}
