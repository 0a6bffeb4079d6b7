//! The long suite: many random lives, and storms. `cargo xtask check --long manager`

// The attribute tells clippy that helpers of tests may unwrap.
#[cfg(test)]
#[path = "../it/chance.rs"]
mod chance;
#[cfg(test)]
#[path = "../it/oracle.rs"]
mod oracle;
#[cfg(test)]
mod storm;

#[test]
fn ten_thousand_random_lives_go_as_the_oracle_says() {
    chance::try_lives(10_000);
}
