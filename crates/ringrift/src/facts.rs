//! Facts in one sentence, for people: what `ringrift events` prints and the page shows.

use courier::Stream;
use ringrift_pipeline::{Advice, Config, Event, MatchResult, Operational};
use serde::Serialize;
use serde_json::Value;

/// How a fact feels; the page colours by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// Everyday.
    Plain,
    /// Progress.
    Good,
    /// Somebody should look.
    Bad,
    /// Bookkeeping that a person rarely wants to see.
    Quiet,
}

/// A fact, told.
pub struct Told {
    /// What happened, e.g. `model.promoted`.
    pub topic: String,
    /// Configuration of the game, where the fact is about one.
    pub config: Option<Config>,
    /// How it feels.
    pub tone: Tone,
    /// What happened, in words.
    pub sentence: String,
}

/// Tells a fact; one that this version does not know is told by its topic.
pub fn tell(stream: Stream, body: &Value) -> Told {
    let known = match stream {
        Stream::Pipeline => serde_json::from_value(body.clone()).ok().map(|event| pipeline(&event)),
        Stream::Operational => {
            serde_json::from_value(body.clone()).ok().map(|fact| operational(&fact))
        }
    };
    known.unwrap_or_else(|| {
        let topic = body.get("topic").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        let sentence = "a fact that this version does not know".to_owned();
        Told { topic, config: None, tone: Tone::Bad, sentence }
    })
}

fn plural(number: impl Into<u64>, one: &str) -> String {
    let number = number.into();
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

fn elo(result: &MatchResult) -> String {
    format!(
        "{:.0}% over {}, {:+.0} Elo [{:+.0}, {:+.0}]",
        result.score * 100.0,
        plural(result.games, "game"),
        result.elo,
        result.elo_low,
        result.elo_high
    )
}

#[expect(clippy::too_many_lines, reason = "one arm per event")]
fn pipeline(event: &Event) -> Told {
    use Tone::{Bad, Good, Plain, Quiet};
    let (config, tone, sentence) = match event {
        Event::WorkQueued(e) => {
            (Some(e.config), Quiet, format!("{} is queued: {}", e.work, e.reason))
        }
        Event::WorkClaimed(e) => (
            e.work.config(),
            Quiet,
            format!("{} is taken by {} (attempt {})", e.work, e.node, e.attempt),
        ),
        Event::WorkReleased(e) => {
            (e.work.config(), Plain, format!("{} is given back: {}", e.work, e.reason))
        }
        Event::WorkFailed(e) => {
            let rest = if e.last { "; it is given up" } else { "" };
            (
                e.work.config(),
                Bad,
                format!("{} failed at attempt {}: {}{rest}", e.work, e.attempt, e.error),
            )
        }
        Event::WorkCompleted(e) => {
            (e.work.config(), Quiet, format!("{} is done after {:.1} s", e.work, e.seconds))
        }
        Event::WorkCancelled(e) => {
            (e.work.config(), Quiet, format!("{} is cancelled: {}", e.work, e.reason))
        }
        Event::WorkRaised(e) => {
            (e.work.config(), Plain, format!("{} comes before others: {}", e.work, e.reason))
        }
        Event::GamesCommitted(e) => (
            Some(e.config),
            Plain,
            format!(
                "{} played {} in {:.0} s, {}",
                e.model,
                plural(e.games, "game"),
                e.seconds,
                plural(e.positions, "decision")
            ),
        ),
        Event::BatchAccepted(e) => {
            (Some(e.config), Plain, format!("{} replay without a fault", plural(e.games, "game")))
        }
        Event::BatchRejected(e) => {
            (Some(e.config), Bad, format!("a batch of games is refused: {}", e.reason))
        }
        Event::SamplesExported(e) => (
            Some(e.config),
            Plain,
            format!("{} made of {}", plural(e.rows, "sample"), plural(e.games, "game")),
        ),
        Event::WindowCombined(e) => (
            Some(e.config),
            Plain,
            format!(
                "a training window of {} from {}",
                plural(e.rows, "sample"),
                plural(e.games, "game")
            ),
        ),
        Event::CheckpointSaved(e) => {
            (Some(e.config), Quiet, format!("{} can go on from a checkpoint", e.work))
        }
        Event::TrainingCompleted(e) => (
            Some(e.config),
            Plain,
            format!(
                "{} is trained: {}, policy loss {:.3}, value loss {:.3}",
                e.model,
                plural(e.report.steps, "step"),
                e.report.policy_loss,
                e.report.value_loss
            ),
        ),
        Event::ModelCreated(e) => {
            let from = match &e.parent {
                Some(parent) => format!("trained from {parent}"),
                None => "with random weights".to_owned(),
            };
            (Some(e.config), Plain, format!("{} exists, {from}", e.model))
        }
        Event::MatchPlayed(e) => (
            Some(e.config),
            Plain,
            format!("{} against {}: {}", e.result.a, e.result.b, elo(&e.result)),
        ),
        Event::EvaluationCompleted(e) => {
            let sentence = match (&e.fault, &e.main) {
                (Some(fault), _) => format!("{} cannot be matched: {fault}", e.model),
                (None, Some(main)) => {
                    format!("{} met {}: {}", e.model, e.against, elo(main))
                }
                (None, None) => format!("{} met {} without a result", e.model, e.against),
            };
            (Some(e.config), if e.fault.is_some() { Bad } else { Plain }, sentence)
        }
        Event::ModelRejected(e) => {
            (Some(e.config), Plain, format!("{} is not taken: {}", e.model, e.reason))
        }
        Event::ModelAccepted(e) => {
            (Some(e.config), Quiet, format!("{} is accepted: {}", e.model, e.reason))
        }
        Event::ChampionInstalled(e) => {
            (Some(e.config), Plain, format!("{} plays until something beats it", e.model))
        }
        Event::ModelPromoted(e) => (
            Some(e.config),
            Good,
            format!(
                "{} is champion: it beat {} by {:+.0} Elo [{:+.0}, {:+.0}] over {}",
                e.model,
                e.over,
                e.elo,
                e.elo_low,
                e.elo_high,
                plural(e.games, "game")
            ),
        ),
        Event::ModelDistributed(e) => {
            (Some(e.config), Plain, format!("workers of {} play with {}", e.node, e.model))
        }
        Event::ParametersSet(e) => {
            (Some(e.config), Plain, format!("parameters are set: {}", e.reason))
        }
        Event::AdviceGiven(e) => {
            let saw = match e.advice {
                Advice::Regression => "regression",
                Advice::Plateau => "plateau",
                Advice::Progress => "progress",
            };
            (Some(e.config), Quiet, format!("{saw} seen at {}: {}", e.model, e.reason))
        }
        Event::CurriculumRebalanced(e) => {
            (None, Quiet, format!("weights of the configs changed: {}", e.reason))
        }
        Event::AllocationUpdated(e) => {
            let shares: Vec<String> = e
                .shares
                .iter()
                .map(|(config, share)| format!("{config} {:.0}%", share * 100.0))
                .collect();
            (None, Quiet, format!("self-play is shared out: {}", shares.join(", ")))
        }
        Event::NodeJoined(e) => {
            let (node, role, slots) = (&e.node, &e.role, e.slots);
            let at = e.addresses.join(", ");
            (None, Plain, format!("node {node} runs {role} with {slots} workers, reached at {at}"))
        }
        Event::NodeInvited(e) => (None, Plain, format!("{} invited a machine as {}", e.by, e.role)),
        Event::NodeAdmitted(e) => (None, Good, format!("node {} was let in as {}", e.node, e.role)),
        Event::NodeDrained(e) => {
            let what = if e.draining { "takes no new work" } else { "takes work again" };
            (None, Plain, format!("node {} {what}", e.node))
        }
        Event::NodeRemoved(e) => (None, Bad, format!("node {} was put out", e.node)),
        Event::ArtefactTrashed(e) => {
            let hash: String = e.hash.0.chars().take(12).collect();
            (None, Quiet, format!("file {hash} went to the trash: {}", e.reason))
        }
        Event::ArtefactsHeld(e) => {
            (None, Quiet, format!("node {} has {} more artefacts", e.node, e.hashes.len()))
        }
        Event::ArtefactsOffered(e) => {
            let (node, number) = (&e.node, e.hashes.len());
            (None, Plain, format!("node {node} offers {number} artefacts to others: {}", e.reason))
        }
        Event::ArtefactsReleased(e) => {
            let (node, number) = (&e.node, e.hashes.len());
            (None, Quiet, format!("node {node} has {number} artefacts no longer: {}", e.reason))
        }
    };
    Told { topic: event.topic().to_owned(), config, tone, sentence }
}

fn operational(fact: &Operational) -> Told {
    let (config, tone, sentence) = match fact {
        Operational::DaemonStatusChanged(e) => {
            let bad = e.error.is_some() || matches!(e.to.as_str(), "failed" | "import_failed");
            let why = e.error.clone().unwrap_or_else(|| e.reason.replace('_', " "));
            let tone = if bad { Tone::Bad } else { Tone::Quiet };
            (None, tone, format!("{}: {} -> {} ({why})", e.daemon, e.from, e.to))
        }
        Operational::DaemonRestartsChanged(e) => {
            let end = if e.given_up { ", given up" } else { "" };
            let sentence = format!("{}: {} crashes in a row{end}", e.daemon, e.crashes);
            (None, if e.given_up { Tone::Bad } else { Tone::Quiet }, sentence)
        }
        Operational::GateChanged(e) => {
            let sentence = if e.open {
                format!("{} goes on", e.gate)
            } else {
                format!("{} holds back: {}", e.gate, e.reason)
            };
            (e.config, Tone::Quiet, sentence)
        }
        Operational::AlarmChanged(e) => {
            let tone = if e.raised { Tone::Bad } else { Tone::Good };
            let word = if e.raised { "alarm" } else { "all clear" };
            (None, tone, format!("{word} {}: {}", e.alarm, e.sentence))
        }
        Operational::TrainingFellBack(e) => {
            let sentence = format!("training may begin with old data: {}", e.reason);
            (Some(e.config), Tone::Bad, sentence)
        }
        Operational::DeadLettersReplayed(e) => {
            let tone = if e.abandoned > 0 { Tone::Bad } else { Tone::Plain };
            let sentence =
                format!("dead letters: {} recovered, {} given up", e.recovered, e.abandoned);
            (None, tone, sentence)
        }
    };
    Told { topic: fact.topic().to_owned(), config, tone, sentence }
}

#[cfg(test)]
mod tests {
    use ringrift_pipeline::{BlobHash, ModelId, ModelPromoted, SamplesExported};
    use serde_json::json;

    use super::*;

    fn check(event: impl Into<Event>, tone: Tone, sentence: &str) {
        let body = serde_json::to_value(event.into()).unwrap();
        let told = tell(Stream::Pipeline, &body);
        assert_eq!((told.tone, told.sentence.as_str()), (tone, sentence));
    }

    #[test]
    fn a_fact_is_one_sentence_with_its_figures() {
        let config: Config = "hex8_2p".parse().unwrap();
        check(
            ModelPromoted {
                model: ModelId::new(config, 2),
                config,
                over: ModelId::new(config, 1),
                elo: 41.4,
                elo_low: 12.0,
                elo_high: 70.6,
                games: 220,
            },
            Tone::Good,
            "hex8_2p-m0002 is champion: it beat hex8_2p-m0001 by +41 Elo [+12, +71] over 220 games",
        );
        check(
            SamplesExported {
                samples: BlobHash("a".repeat(64)),
                bytes: 1,
                config,
                batches: Vec::new(),
                rows: 1200,
                games: 1,
                encoder: "e".into(),
            },
            Tone::Plain,
            "1200 samples made of 1 game",
        );
    }

    #[test]
    fn an_unknown_fact_is_told_as_such() {
        let told = tell(Stream::Pipeline, &json!({ "topic": "moon.landed" }));
        assert_eq!(told.topic, "moon.landed");
        assert_eq!(told.tone, Tone::Bad);
        assert_eq!(tell(Stream::Operational, &json!(7)).topic, "unknown");
    }
}
