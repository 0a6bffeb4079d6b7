//! How long hosts wait for what others made, read from the facts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;

/// How long each promotion took to reach all hosts that play: their clocks are one here.
pub fn to_all(facts: &[Value], players: &BTreeSet<String>) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut models: BTreeMap<String, String> = BTreeMap::new();
    let mut promoted: BTreeMap<String, i64> = BTreeMap::new();
    // Of each champion, who had it in his workers' hands first when, and who began to play with it.
    let (mut handed, mut played): (BTreeMap<_, BTreeMap<_, i64>>, BTreeMap<_, BTreeMap<_, i64>>) =
        Default::default();
    for fact in facts {
        let (body, at) = (&fact["body"], fact["time_ms"].as_i64().unwrap());
        let node = text(&fact["source"]).rsplit_once('@').map(|(_, node)| node.to_owned());
        let of = |model: &str| promoted.contains_key(model).then(|| model.to_owned());
        match fact["topic"].as_str().unwrap() {
            "work.queued" if body["job"]["kind"] == "selfplay" => {
                models.insert(text(&body["work"]), text(&body["job"]["model"]["id"]));
            }
            "model.promoted" => {
                promoted.insert(text(&body["model"]), at);
            }
            "model.distributed" => {
                if let Some(model) = of(&text(&body["model"])) {
                    handed.entry(model).or_default().entry(node).or_insert(at);
                }
            }
            "work.claimed" => {
                let model = models.get(&text(&body["work"])).and_then(|model| of(model));
                if let Some(model) = model {
                    played.entry(model).or_default().entry(node).or_insert(at);
                }
            }
            _ => {}
        }
    }
    let last = |who: &BTreeMap<String, BTreeMap<Option<String>, i64>>, model: &str, at: i64| {
        let times = who.get(model).into_iter().flatten();
        let of_players: Vec<i64> = times
            .filter(|(node, _)| node.as_ref().is_some_and(|node| players.contains(node)))
            .map(|(_, at)| *at)
            .collect();
        match of_players.iter().max() {
            Some(last) if of_players.len() == players.len() => {
                let waited = Duration::from_millis((last - at).unsigned_abs());
                format!("{:.1} s", waited.as_secs_f64())
            }
            _ => format!("{} of {} hosts only", of_players.len(), players.len()),
        }
    };
    let line = |(model, at): (&String, &i64)| {
        let (handed, played) = (last(&handed, model, *at), last(&played, model, *at));
        format!(
            "{model}: promoted -> handed out on all hosts that play {handed}, all play it {played}"
        )
    };
    promoted.iter().map(line).collect()
}
