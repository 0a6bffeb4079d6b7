//! Profiles: which daemons a kind of node starts. A spec names the profiles it belongs to.

use warden::Profile;

/// Source: runbook, "Coordinator Profile" (7 daemons).
pub const COORDINATOR: Profile = Profile("coordinator");
/// Source: runbook, "Training Node Profile" (3 daemons).
pub const TRAINING: Profile = Profile("training");
/// Source: runbook, "Selfplay Node Profile" (3 daemons).
pub const SELFPLAY: Profile = Profile("selfplay");
/// The wider coordinator.
pub const COORDINATOR_FULL: Profile = Profile("coordinator-full");
/// The wider training node.
pub const TRAINING_FULL: Profile = Profile("training-full");
/// The wider self-play node.
pub const SELFPLAY_FULL: Profile = Profile("selfplay-full");
/// A node that may vanish.
pub const EPHEMERAL: Profile = Profile("ephemeral");
/// Only what every node has.
pub const MINIMAL: Profile = Profile("minimal");
/// Everything that is built.
pub const FULL: Profile = Profile("full");
/// All that closes the loop on one machine; what `up` starts without a profile.
pub const STANDALONE: Profile = Profile("standalone");

/// All profiles and what they are for.
pub const PROFILES: &[(Profile, &str)] = &[
    (COORDINATOR, "plans and keeps the data (runbook)"),
    (TRAINING, "trains (runbook)"),
    (SELFPLAY, "plays (runbook)"),
    (COORDINATOR_FULL, "a coordinator with all its monitors"),
    (TRAINING_FULL, "a training node that also exports and evaluates"),
    (SELFPLAY_FULL, "a self-play node with sync and feedback"),
    (EPHEMERAL, "a node that may vanish at any time"),
    (MINIMAL, "events, watchdog and probes only"),
    (FULL, "everything that is built"),
    (STANDALONE, "the whole loop on one machine"),
];

/// Other spellings that operators use.
pub const PROFILE_ALIASES: &[(&str, Profile)] =
    &[("training_node", TRAINING), ("selfplay_node", SELFPLAY)];

/// Finds a profile by name or alias.
pub fn profile(name: &str) -> Option<Profile> {
    PROFILES.iter().map(|(profile, _)| *profile).find(|profile| profile.0 == name).or_else(|| {
        PROFILE_ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, profile)| *profile)
    })
}
