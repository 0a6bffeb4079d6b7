//! A few hundred random lives; the long suite tries many more.

#[test]
fn random_lives_go_as_the_oracle_says() {
    crate::chance::try_lives(200);
}
