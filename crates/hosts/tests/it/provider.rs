//! A provider of scripts that fails in all the ways that real ones do.

use std::{path::Path, time::Duration};

use hosts::{
    ActError, Acted, Action, Budget, Guard, InstanceId, Listing, Programs, Provider as _,
    ProviderError, Standing, State,
};

use crate::script;

const PLENTY: Budget = Budget { actions: 100, per_instance: 100 };

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

/// A provider whose listing is what stands in a file, and which notes what it was asked for.
struct Cupboard(tempfile::TempDir);

impl Cupboard {
    fn new() -> Self {
        let cupboard = Self(tempfile::tempdir().unwrap());
        cupboard.says("cat \"$0.json\"");
        cupboard.lists(r#"{"instances": []}"#);
        cupboard.does("");
        cupboard
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn says(&self, text: &str) {
        script(&self.at("list"), text);
    }

    fn lists(&self, json: &str) {
        fs_err::write(self.at("list.json"), json).unwrap();
    }

    fn does(&self, text: &str) {
        for action in ["start", "stop", "reboot"] {
            let text = format!("echo {action} \"$@\" >>\"$(dirname \"$0\")/asked\"\n{text}");
            script(&self.at(action), &text);
        }
    }

    fn programs(&self) -> Programs {
        let command =
            |name: &str| ["/bin/sh", self.at(name).to_str().unwrap()].map(str::to_owned).to_vec();
        Programs {
            list: command("list"),
            start: Some(command("start")),
            stop: Some(command("stop")),
            reboot: Some([command("reboot"), vec!["--id".to_owned()]].concat()),
            limit: Duration::from_secs(10),
        }
    }

    fn guard(&self, budget: Budget) -> Guard {
        Guard::new(self.programs(), false, budget)
    }

    /// What it was asked to do.
    fn asked(&self) -> String {
        let asked: &Path = &self.at("asked");
        if asked.exists() { fs_err::read_to_string(asked).unwrap() } else { String::new() }
    }

    async fn list(&self) -> Result<Listing, ProviderError> {
        self.programs().list().await
    }
}

fn one(state: &str) -> String {
    format!(
        r#"{{"instances": [{{"id": "i-1", "name": "a", "state": "{state}"}}, {{"id": 2, "state": "running"}}]}}"#
    )
}

#[tokio::test]
async fn a_listing_says_what_the_provider_says() {
    let cupboard = Cupboard::new();
    for (word, state) in [
        ("running", State::Running),
        ("starting", State::Starting),
        ("stopping", State::Stopping),
        ("stopped", State::Stopped),
        ("gone", State::Gone),
        ("unknown", State::Unknown),
        ("RUNNING", State::Unknown),
        ("idle", State::Unknown),
    ] {
        cupboard.lists(&one(word));
        let listing = cupboard.list().await.unwrap();
        assert_eq!(listing.standing(&id("i-1")), Standing::Listed(state), "{word}");
        assert_eq!(
            listing.standing(&id("2")),
            Standing::Listed(State::Running),
            "a number is a name"
        );
        assert_eq!(listing.standing(&id("i-3")), Standing::Absent);
    }
    assert_eq!(cupboard.list().await.unwrap().instances().count(), 2);
}

#[tokio::test]
async fn nothing_follows_from_an_empty_or_a_partial_listing() {
    let cupboard = Cupboard::new();
    let standing = async || cupboard.list().await.unwrap().standing(&id("i-1"));
    assert_eq!(standing().await, Standing::Untold("the listing is empty"));
    cupboard.lists(r#"{"instances": [{"id": "i-2", "state": "running"}], "partial": true}"#);
    assert_eq!(standing().await, Standing::Untold("the listing is not whole"));
    cupboard.lists(r#"{"instances": [{"id": "i-1", "state": "gone"}], "partial": true}"#);
    assert_eq!(standing().await, Standing::Listed(State::Gone));
}

#[tokio::test]
async fn who_cannot_be_asked_or_understood_never_lists_nothing() {
    let cupboard = Cupboard::new();
    let fault = async |says: &str| {
        cupboard.says(says);
        cupboard.list().await.unwrap_err()
    };
    for (says, expected) in [
        // An outage.
        ("echo 'connection refused' >&2; exit 1", "could not be asked: "),
        ("echo '{\"instances\": []}'; exit 1", "could not be asked: "),
        ("kill -9 $$", "could not be asked: "),
        ("echo '{\"error\": \"rate limit\"}'", "could not be asked: rate limit"),
        ("echo '{\"error\": \"rate limit\", \"instances\": []}'", "could not be asked: rate limit"),
        // Garbage.
        ("true", "not understood: it said nothing"),
        ("echo '{}'", "not understood: it has no `instances`"),
        ("echo '[]'", "not understood: "),
        ("echo null", "not understood: "),
        ("echo '<html>502 Bad Gateway</html>'", "not understood: "),
        ("echo '{\"instances\": null}'", "not understood: it has no `instances`"),
        ("echo '{\"instances\": [{\"id\": \"i-1\"}]}'", "not understood: "),
        (
            "echo '{\"instances\": [{\"id\": \"--all\", \"state\": \"running\"}]}'",
            "'--all' is no id",
        ),
        ("echo '{\"instances\": [{\"id\": \"\", \"state\": \"running\"}]}'", "'' is no id"),
        // Cut off in the middle, or two answers in one.
        ("printf '{\"instances\": [{\"id\": \"i-1\", \"sta'", "not understood: "),
        ("echo '{\"instances\": []}'; echo '{\"instances\": []}'", "not understood: "),
        ("head -c 2000000 /dev/zero", "not understood: it is longer than 1 MiB"),
        (
            "echo '{\"instances\": [{\"id\": \"1\", \"state\": \"running\"}, {\"id\": 1, \"state\": \"gone\"}]}'",
            "not understood: it lists 1 twice",
        ),
    ] {
        let error = fault(says).await.to_string();
        assert!(error.contains(expected), "{says}: {error}");
    }
    let mut programs = cupboard.programs();
    programs.list = vec!["/no/such/program".to_owned()];
    assert!(matches!(programs.list().await, Err(ProviderError::Unasked(_))));
    cupboard.says("sleep 1000");
    let hangs = Programs { limit: Duration::from_millis(200), ..cupboard.programs() };
    let error = hangs.list().await.unwrap_err().to_string();
    assert!(error.contains("was not done within 0.2 s"), "{error}");
}

#[tokio::test]
async fn an_action_gets_the_id_last_and_may_be_refused() {
    let cupboard = Cupboard::new();
    let programs = cupboard.programs();
    let act = async |action| programs.act(action, &id("i-1")).await;
    for action in [Action::Start, Action::Stop, Action::Reboot] {
        act(action).await.unwrap();
    }
    assert_eq!(cupboard.asked(), "start i-1\nstop i-1\nreboot --id i-1\n");
    cupboard.does("echo '{\"error\": \"no credit\"}'");
    assert_eq!(act(Action::Start).await, Err(ProviderError::Refused("no credit".into())));
    cupboard.does("echo 'no such instance' >&2; exit 3");
    let error = act(Action::Stop).await.unwrap_err().to_string();
    assert!(error.contains("exit code 3: no such instance"), "{error}");
    let without = Programs { stop: None, ..cupboard.programs() };
    assert_eq!(
        without.act(Action::Stop, &id("i-1")).await,
        Err(ProviderError::Unsupported(Action::Stop))
    );
}

#[tokio::test]
async fn nothing_is_done_to_what_the_provider_does_not_list_in_a_fitting_state() {
    let cupboard = Cupboard::new();
    let guard = cupboard.guard(PLENTY);
    let revive = async |state: &str| {
        cupboard.lists(&one(state));
        guard.revival(&id("i-1")).await.map(|plan| plan.action).map_err(|error| error.to_string())
    };
    let nothing = |state: &str| Err(format!("i-1 is {state}: there is nothing to revive"));
    assert_eq!(revive("running").await, Ok(Action::Reboot));
    assert_eq!(revive("stopped").await, Ok(Action::Start));
    for state in ["starting", "stopping", "gone"] {
        assert_eq!(revive(state).await, nothing(state));
    }
    let untold = "how i-1 is cannot be told: the provider does not know".to_owned();
    assert_eq!(revive("unknown").await, Err(untold));
    let stop = guard.consider(Action::Stop, &id("2")).await.unwrap();
    assert_eq!((stop.action, stop.is_dry), (Action::Stop, false));
    let start = guard.consider(Action::Start, &id("2")).await.unwrap_err();
    assert_eq!(start.to_string(), "2 is running: there is nothing to start");

    // A wrong id, and one that vanished.
    let absent = guard.revival(&id("i-9")).await.unwrap_err();
    assert_eq!(absent, ActError::Absent(id("i-9")));
    cupboard.lists(r#"{"instances": []}"#);
    let untold = guard.revival(&id("i-1")).await.unwrap_err();
    assert!(matches!(untold, ActError::Untold { .. }), "{untold}");
    cupboard.says("exit 1");
    let unasked = guard.revival(&id("i-1")).await.unwrap_err();
    assert!(matches!(unasked, ActError::Provider(ProviderError::Unasked(_))), "{unasked}");
    let without = Programs { reboot: None, ..cupboard.programs() };
    cupboard.says("cat \"$0.json\"");
    cupboard.lists(&one("running"));
    let unsupported = Guard::new(without, false, PLENTY).revival(&id("i-1")).await.unwrap_err();
    assert_eq!(unsupported, ProviderError::Unsupported(Action::Reboot).into());
    assert_eq!(cupboard.asked(), "", "considering does nothing");
}

#[tokio::test]
async fn a_dry_run_asks_only_for_listings() {
    let cupboard = Cupboard::new();
    cupboard.lists(&one("running"));
    let guard = Guard::new(cupboard.programs(), true, Budget { actions: 1, per_instance: 1 });
    for _ in 0..3 {
        let plan = guard.revival(&id("i-1")).await.unwrap();
        assert!(plan.is_dry);
        assert_eq!(guard.take(&plan).await, Ok(Acted::Dry), "it costs no budget");
    }
    assert_eq!(cupboard.asked(), "");
}

#[tokio::test]
async fn actions_have_a_budget_for_each_instance_and_in_all_also_those_that_fail() {
    let cupboard = Cupboard::new();
    cupboard.lists(&one("running"));
    let guard = cupboard.guard(Budget { actions: 3, per_instance: 2 });
    let first = guard.revival(&id("i-1")).await.unwrap();
    let other = guard.revival(&id("2")).await.unwrap();
    assert_eq!(guard.take(&first).await, Ok(Acted::Asked));
    cupboard.does("exit 1");
    assert!(matches!(guard.take(&first).await, Err(ActError::Provider(_))));
    let over = guard.revival(&id("i-1")).await.unwrap_err();
    assert_eq!(over.to_string(), "2 actions within an hour are all that is allowed on i-1");
    assert_eq!(guard.take(&first).await, Err(over), "nor what was considered before");
    cupboard.does("");
    assert_eq!(guard.take(&other).await, Ok(Acted::Asked));
    let over = guard.revival(&id("2")).await.unwrap_err();
    assert_eq!(over.to_string(), "3 actions within an hour are all that is allowed");
    assert_eq!(cupboard.asked(), "reboot --id i-1\nreboot --id i-1\nreboot --id 2\n");

    // What an earlier life asked for counts as well.
    let next_life = cupboard.guard(Budget { actions: 2, per_instance: 1 });
    next_life.remember(&id("i-1"), 1);
    next_life.remember(&id("i-1"), 1);
    assert!(matches!(next_life.revival(&id("i-1")).await, Err(ActError::OverBudget { .. })));
    assert!(next_life.revival(&id("2")).await.is_ok());
}

/// A provider that lists one that runs, and takes everything on.
struct Fake;

impl hosts::Provider for Fake {
    fn list(&self) -> hosts::Asking<'_, Listing> {
        let instance = hosts::Instance { id: id("i-1"), name: None, state: State::Running };
        Box::pin(std::future::ready(Ok(Listing::new([instance], false))))
    }

    fn act<'a>(&'a self, _: Action, _: &'a InstanceId) -> hosts::Asking<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn supports(&self, _: Action) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_comes_back_an_hour_after_it_was_spent() {
    let guard = Guard::new(Fake, false, Budget { actions: 1, per_instance: 1 });
    let plan = guard.revival(&id("i-1")).await.unwrap();
    guard.take(&plan).await.unwrap();
    tokio::time::advance(Duration::from_secs(3599)).await;
    assert!(matches!(guard.revival(&id("i-1")).await, Err(ActError::OverBudget { .. })));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(guard.revival(&id("i-1")).await.is_ok());
}
