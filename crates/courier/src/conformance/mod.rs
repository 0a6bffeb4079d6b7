//! The suite that every engine must pass.
//!
//! The tests of an engine make a [`Fixture`] and write
//! `courier::conformance_suite!(MyFixture::new());`: that makes one test per claim.

pub mod histories;
mod leases;
mod log;
mod subscribers;

use crate::courier::{Answer, Courier};
use crate::fact::{Batch, NewFact, Stream};

pub use leases::*;
pub use log::*;
pub use subscribers::*;

/// A log of its own for one test.
pub trait Fixture: Send {
    /// The handle to the log.
    fn courier(&self) -> Courier;

    /// Ends the engine as a stop of its process would, and begins again on the same data. The
    /// handles given out before are dropped by then.
    fn reopen(&mut self) -> Answer<'_, Result<(), Violation>>;
}

/// What an engine does that the contract does not allow, or why the test could not run.
pub type Violation = Box<dyn std::error::Error + Send + Sync>;

/// The outcome of a test.
pub type Verdict = Result<(), Violation>;

/// The time of all tests, milliseconds since the Unix epoch.
const NOW: i64 = 1_700_000_000_000;

/// Ends the test unless something is so.
macro_rules! claim {
    ($so:expr, $($why:tt)+) => {
        if !$so {
            return Err(format!($($why)+).into());
        }
    };
}

/// Ends the test unless two things are equal.
macro_rules! same {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            let text = format!(
                "{}:{}: {} is {left:?}, not {right:?}",
                file!(),
                line!(),
                stringify!($left)
            );
            return Err(text.into());
        }
    }};
}

/// Ends the test unless a result matches; gives what the pattern binds.
macro_rules! refused {
    ($result:expr, $pattern:pat) => {
        let result = $result;
        let Err($pattern) = result else {
            let text = format!(
                "{}:{}: {} is {result:?}, not {}",
                file!(),
                line!(),
                stringify!($result),
                stringify!($pattern)
            );
            return Err(text.into());
        };
    };
}

use {claim, refused, same};

/// A fact with a small body that tells it from others.
fn fact(id: &str, subject: &str) -> NewFact {
    NewFact::new(id, subject, "suite", serde_json::json!({ "of": id }))
}

/// Appends facts with these ids on one subject; returns their positions.
async fn fill(log: &Courier, subject: &str, ids: &[&str]) -> Result<Vec<u64>, Violation> {
    let facts = ids.iter().map(|id| fact(id, subject)).collect();
    Ok(log.append(Stream::Pipeline, Batch::new(facts), NOW).await?)
}

/// Makes one test of each claim; the argument is an expression that makes a [`Fixture`] in an async
/// context.
#[macro_export]
macro_rules! conformance_suite {
    ($fixture:expr) => {
        $crate::conformance_suite! { $fixture;
            facts_come_back_as_they_went_in
            positions_grow
            a_repeated_id_gives_the_old_position
            a_repeated_id_beside_a_new_one_adds_only_the_new_one
            an_id_on_another_subject_is_refused
            one_of_many_wins_a_compare_and_append
            a_conflict_tells_what_is_so
            a_batch_enters_whole_or_not_at_all
            expectations_speak_of_the_log_before_the_batch
            streams_do_not_see_each_other
            what_no_engine_takes_is_refused
            the_last_fact_is_that_of_the_exact_subject
            the_last_fact_on_each_subject_below_one
            reading_is_in_pages
            the_tail_wakes_after_an_append
            the_log_survives_a_restart
            positions_of_subscribers_never_go_back
            every_subscriber_is_listed_with_what_it_has_to_do
            a_filter_is_whole_tokens
            a_page_says_how_far_it_looked
            attempts_are_counted_for_the_fact_in_hand
            a_buried_fact_is_a_letter_and_is_passed_over
            burying_twice_is_one_letter
            a_letter_lives_until_it_is_settled_and_purged
            unknown_letters_and_facts_are_named
            a_subscriber_gets_each_fact_in_order_and_once
            a_life_cut_short_repeats_a_few_and_skips_none
            a_failing_handler_is_tried_again_and_then_buried
            a_handler_that_never_answers_is_buried_too
            a_letter_that_is_retried_comes_again
            slow_subscribers_do_not_slow_a_publisher
            one_holder_at_a_time
            epochs_grow_with_every_grant
            a_lease_that_ran_out_cannot_be_prolonged
            a_holder_leaves_a_note_at_its_lease
            giving_back_frees_and_only_the_own_lease
            leases_are_listed_by_prefix
            a_fence_refuses_who_lost_the_lease
            letters_are_left_alone_by_who_lost_the_lease
            a_repeated_batch_is_not_fenced
            leases_survive_a_restart
        }
    };
    ($fixture:expr; $($name:ident)+) => {
        $(
            #[tokio::test]
            async fn $name() -> $crate::conformance::Verdict {
                let mut fixture = $fixture;
                $crate::conformance::$name(&mut fixture).await
            }
        )+
    };
}
