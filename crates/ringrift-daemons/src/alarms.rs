//! Alarms: what needs a person's eye, told when it begins and when it is over.

use std::collections::BTreeMap;

use courier::Stream;
use ringrift_pipeline::{AlarmChanged, Catalogue, CatalogueError, Operational, Topic as _};
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
            if raised {
                warn!(alarm, sentence, "alarm raised");
            } else {
                info!(alarm, "alarm cleared");
            }
            let fact = AlarmChanged { alarm: catalogue.called_here(alarm), raised, sentence };
            match catalogue.note(Operational::AlarmChanged(fact), now_ms).await {
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
}
