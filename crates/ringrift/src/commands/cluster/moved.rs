//! What a history leaves behind when it moves from one log to another.

use courier::{Courier, Reader, Stream, refold};
use ringrift_daemons::standing;
use ringrift_pipeline::{
    AlarmChanged, Catalogue, Gate, GateChanged, Operational, PipelineFold, Record, WorkReleased,
    WorkState,
};

/// Facts that are recorded at a time.
const AT_A_TIME: usize = 500;

/// Ends what held under the log that a history comes from: claims, because the leases that tell who lives stay
/// behind; and alarms and closed gates, because those who told of them do, and whoever finds it still so says it again.
pub(super) async fn end_what_held(log: &Courier, source: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("catalogue.sqlite");
    let head = log.head(Stream::Pipeline).await?;
    refold(&file, PipelineFold, log.clone(), head).await?;
    let catalogue = Catalogue::read_only(log.clone(), Reader::new(&file)).for_source(source);
    let now_ms = warden::Clock::system().now_ms();
    let mut claimed = catalogue.open_works().await?;
    claimed.retain(|item| item.state == WorkState::Claimed);
    for items in claimed.chunks(AT_A_TIME) {
        let records = items.iter().map(|item| {
            let reason = "the history moved to another log: nobody works on it any more".to_owned();
            Record::after(WorkReleased { work: item.id.clone(), reason }, item.position)
        });
        catalogue.record(records.collect(), now_ms).await?;
    }
    let alarms = standing(&catalogue).await?.into_iter().map(|alarm| {
        let (alarm, sentence) = (alarm.alarm, "it is over".to_owned());
        Operational::AlarmChanged(AlarmChanged { alarm, raised: false, sentence })
    });
    let told = log.last_below(Stream::Operational, "gate").await?.into_iter();
    let closed = told.filter_map(|fact| match serde_json::from_value(fact.body) {
        Ok(Operational::GateChanged(gate)) if !gate.open => {
            let GateChanged { gate, config, .. } = gate;
            Some(Operational::GateChanged(Gate::Allow.to_fact(&gate, config)))
        }
        _ => None,
    });
    let over: Vec<Operational> = alarms.chain(closed).collect();
    for over in over.chunks(AT_A_TIME) {
        catalogue.note_all(over.to_vec(), now_ms).await?;
    }
    Ok(())
}
