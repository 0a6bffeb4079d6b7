//! `registry`: every type of daemon there is.

use clap::Args;
use ringrift_daemons::{
    CATEGORIES, RETIRED, check_registry_health, daemons_by_category, in_start_order,
    validate_registry,
};
use serde_json::{Value, json};

use crate::{
    cli::Print,
    config::nearest,
    console,
    exit::{FAILED, Failure, Outcome},
};

/// See [`crate::cli`].
#[derive(Debug, Args)]
pub struct RegistryArgs {
    #[command(flatten)]
    print: Print,
    /// Only this category
    #[arg(long)]
    category: Option<String>,
    /// Check the registry; exit code 1 if anything is wrong with it
    #[arg(long)]
    validate: bool,
}

/// Runs the command.
pub fn run(args: &RegistryArgs) -> Outcome {
    if args.validate {
        let faults = validate_registry();
        if args.print.json {
            let (valid, health) = (faults.is_empty(), check_registry_health());
            console::say_json(&json!({ "valid": valid, "errors": faults, "health": health }))?;
        } else if faults.is_empty() {
            console::say("the registry is valid");
        } else {
            console::say(&faults.join("\n"));
        }
        return if faults.is_empty() { Ok(()) } else { Err(Failure::told(FAILED)) };
    }
    if let Some(category) = &args.category
        && daemons_by_category(category).is_empty()
    {
        let names: Vec<&str> = CATEGORIES.iter().map(|(known, _)| known.0).collect();
        let hint = nearest(category, names.iter().copied())
            .map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"));
        return Err(Failure::usage(anyhow::anyhow!(
            "unknown category '{category}'{hint} There are {}",
            names.join(", ")
        )));
    }
    let rows: Vec<Value> = rows()
        .into_iter()
        .filter(|row| args.category.as_deref().is_none_or(|category| row["category"] == category))
        .collect();
    if args.print.json {
        console::say_json(&rows)?;
        return Ok(());
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
            vec![text("name"), text("category"), text("state_of_build"), text("about")]
        })
        .collect();
    console::table(&["NAME", "CATEGORY", "BUILD", "WHAT IT DOES"], &cells);
    Ok(())
}

/// All types in start order, the retired ones last.
pub fn rows() -> Vec<Value> {
    let active = in_start_order().into_iter().map(|(category, entry)| {
        json!({
            "name": entry.spec.id,
            "category": category,
            "state_of_build": if entry.is_built() { "built" } else { "planned" },
            "about": entry.spec.about,
            "priority": entry.spec.priority,
            "critical": entry.spec.critical,
            "leader_only": entry.spec.leader_only,
            "needs": entry.spec.needs,
            "profiles": entry.spec.profiles,
            "interval_seconds": entry.spec.period.as_secs_f64(),
            "max_restarts": entry.spec.max_restarts,
            "retired": false,
            "successor": null,
        })
    });
    let retired = RETIRED.iter().map(|retired| {
        json!({
            "name": retired.name,
            "category": retired.category,
            "state_of_build": "retired",
            "about": retired.sentence,
            "priority": null,
            "critical": false,
            "leader_only": false,
            "needs": [],
            "profiles": [],
            "interval_seconds": null,
            "max_restarts": null,
            "retired": true,
            "successor": retired.successor,
        })
    });
    active.chain(retired).collect()
}
