//! Alarms: what needs a person's eye, told when it begins and when it is over.

use std::collections::BTreeMap;

use courier::Stream;
use ringrift_pipeline::{AlarmChanged, Catalogue, CatalogueError, Config, Operational, Topic as _};
use serde::Serialize;
use tracing::{info, warn};

/// What this part says in the name of its daemon.
pub(crate) const EMITS: &[&str] = &[AlarmChanged::TOPIC];

/// The alarms of one daemon. It remembers which ones stand, so that telling costs nothing while
/// nothing changes; after a restart the log tells.
#[derive(Debug, Default)]
pub(crate) struct Alarms(BTreeMap<String, bool>);

impl Alarms {
    /// Raises or clears an alarm; a fact is written only when that is a change.
    ///
    /// A full disk cannot keep it: then it is told again at the next call.
    ///
    /// # Errors
    /// [`CatalogueError::Superseded`] if the catalogue's lease was lost, among others.
    pub(crate) async fn set(
        &mut self,
        catalogue: &Catalogue,
        alarm: &str,
        sentence: Option<String>,
        now_ms: i64,
    ) -> Result<(), CatalogueError> {
        let stands = match self.0.get(alarm) {
            Some(stands) => *stands,
            None => alarm_of(catalogue, alarm).await?.is_some(),
        };
        let raised = sentence.is_some();
        if stands != raised {
            let sentence = sentence.unwrap_or_else(|| "it is over".to_owned());
            let called = catalogue.called_here(alarm);
            let fact = AlarmChanged { alarm: called, raised, sentence: sentence.clone() };
            let noted = catalogue.note(Operational::AlarmChanged(fact), now_ms).await;
            // Who was replaced raises nothing.
            if noted.as_ref().is_err_and(CatalogueError::is_superseded) {
                return noted;
            }
            if raised {
                warn!(alarm, sentence, "alarm raised");
            } else {
                info!(alarm, "alarm cleared");
            }
            match noted {
                Err(error) if error.is_obstacle() => return Ok(()),
                noted => noted?,
            }
        }
        self.0.insert(alarm.to_owned(), raised);
        Ok(())
    }
}

/// An alarm that stands: its sentence, and since when (ms).
pub(crate) async fn alarm_of(
    catalogue: &Catalogue,
    alarm: &str,
) -> Result<Option<(String, i64)>, CatalogueError> {
    let subject = format!("alarm.{}", catalogue.called_here(alarm));
    let Some(fact) = catalogue.log().last_on(Stream::Operational, &subject).await? else {
        return Ok(None);
    };
    Ok(match serde_json::from_value(fact.body) {
        Ok(Operational::AlarmChanged(alarm)) if alarm.raised => {
            Some((alarm.sentence, fact.time_ms))
        }
        _ => None,
    })
}

/// An alarm that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Its name; in a cluster with the node that raised it, behind an @.
    pub alarm: String,
    /// What is wrong.
    pub sentence: String,
    /// Since when, ms.
    pub since: i64,
}

impl Alarm {
    /// Whether it is of this config, or of all.
    pub(crate) fn concerns(&self, config: Config) -> bool {
        let name = self.alarm.split('@').next().unwrap_or_default();
        let last = name.rsplit('.').next().unwrap_or_default();
        last.parse::<Config>().ok().is_none_or(|of| of == config)
    }
}

/// All alarms that stand, of all nodes that are in the cluster, oldest first.
///
/// # Errors
/// The log or the catalogue cannot be asked.
pub async fn standing(catalogue: &Catalogue) -> Result<Vec<Alarm>, CatalogueError> {
    let removed: Vec<String> = catalogue
        .nodes()
        .await?
        .into_iter()
        .filter(|row| row.removed)
        .map(|row| format!("@{}", row.node))
        .collect();
    let facts = catalogue.log().last_below(Stream::Operational, "alarm").await?;
    let mut standing = Vec::new();
    for fact in facts {
        // What a newer program says in another way is not understood, and that is all.
        if let Ok(Operational::AlarmChanged(told)) = serde_json::from_value(fact.body)
            && told.raised
            && !removed.iter().any(|node| told.alarm.ends_with(node))
        {
            let AlarmChanged { alarm, sentence, .. } = told;
            standing.push(Alarm { alarm, sentence, since: fact.time_ms });
        }
    }
    Ok(standing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::Bed;

    #[tokio::test]
    async fn an_alarm_is_told_when_it_begins_and_when_it_ends_and_outlives_its_daemon() {
        let bed = Bed::new().await;
        let catalogue = &bed.catalogue;
        let told = async || catalogue.log().head(Stream::Operational).await.unwrap();
        let mut alarms = Alarms::default();
        alarms.set(catalogue, "a.b", None, 1).await.unwrap();
        assert_eq!(told().await, 0, "what never stood need not be cleared");
        alarms.set(catalogue, "a.b", Some("it burns".into()), 2).await.unwrap();
        alarms.set(catalogue, "a.b", Some("it burns more".into()), 3).await.unwrap();
        assert_eq!(told().await, 1);
        assert_eq!(alarm_of(catalogue, "a.b").await.unwrap(), Some(("it burns".into(), 2)));

        let mut next_life = Alarms::default();
        next_life.set(catalogue, "a.b", Some("it burns".into()), 4).await.unwrap();
        assert_eq!(told().await, 1, "it stands already");
        next_life.set(catalogue, "a.b", None, 5).await.unwrap();
        assert_eq!(alarm_of(catalogue, "a.b").await.unwrap(), None);
    }

    #[tokio::test]
    async fn all_that_stand_are_told_but_for_those_of_nodes_that_were_removed() {
        let bed = Bed::new().await;
        let of = |name: &str| bed.catalogue.of_node(Some(ringrift_pipeline::NodeId(name.into())));
        let raise = async |catalogue: &Catalogue, alarm: &str, sentence: Option<&str>| {
            let sentence = sentence.map(ToOwned::to_owned);
            Alarms::default().set(catalogue, alarm, sentence, 1).await.unwrap();
        };
        raise(&bed.catalogue, "progress.hex8_2p", Some("slow")).await;
        raise(&bed.catalogue, "over", Some("was")).await;
        raise(&bed.catalogue, "over", None).await;
        raise(&of("a"), "memory", Some("full")).await;
        raise(&of("gone"), "memory", Some("full")).await;
        bed.node("gone").await;
        let gone = ringrift_pipeline::NodeId("gone".into());
        bed.record(vec![ringrift_pipeline::NodeRemoved { node: gone }.into()]).await;
        let standing = standing(&bed.catalogue).await.unwrap();
        let names: Vec<&str> = standing.iter().map(|alarm| alarm.alarm.as_str()).collect();
        assert_eq!(names, ["progress.hex8_2p", "memory@a"]);
        let hex: Config = "hex8_2p".parse().unwrap();
        let square: Config = "square8_2p".parse().unwrap();
        assert!(standing[0].concerns(hex) && !standing[0].concerns(square));
        assert!(standing[1].concerns(hex) && standing[1].concerns(square));
    }
}
