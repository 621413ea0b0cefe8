//! What every store must do, whatever it keeps its state in.
//!
//! Each function is one promise of [`Store`](sealgate::store::Store), checked against an empty store. [`contract!`] runs them all on one
//! implementation.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod callers;
mod consent;
mod enrolments;
mod jobs;
mod parts;
#[path = "../common/postgres.rs"]
#[allow(dead_code)]
mod postgres_server;
mod records;
mod tickets;

use std::sync::Arc;

use sealgate::{
    domain::ids::GatewayId,
    store::{
        memory::MemoryStore,
        postgres::{PostgresSettings, PostgresStore},
        sqlite::{SqliteSettings, SqliteStore},
    },
};
use tempfile::TempDir;

use self::{parts::AnyStore, postgres_server::Postgres};

/// Every promise.
mod promises {
    pub use super::{accounts::*, callers::*, consent::*, enrolments::*, jobs::*, records::*, tickets::*};
}

/// Every promise, checked on the stores that `$new` makes; what else it returns is kept until the test has ended.
macro_rules! contract {
    ($store:ident, $new:expr) => {
        contract!(
            $store,
            $new,
            [
                a_ticket_is_found_as_it_was_stored_and_gone_when_it_is_deleted,
                a_ticket_that_was_changed_since_it_was_read_is_not_closed,
                a_caller_has_at_most_as_many_tickets_as_it_may,
                of_two_writers_of_a_ticket_the_second_is_refused,
                a_touch_is_no_change_and_is_not_undone_by_one,
                idle_tickets_are_removed_but_not_while_their_job_is_open,
                a_commit_that_fails_at_its_last_change_changed_nothing,
                a_commit_sees_its_own_earlier_changes,
                a_permit_is_spent_by_a_signature_and_given_back_by_a_failure,
                each_refusal_of_a_permit_is_reported,
                a_permit_that_is_revoked_pays_for_nothing_more,
                a_permit_is_not_overspent_by_a_race,
                permits_that_can_still_be_used_are_listed_the_first_to_end_first,
                the_queue_of_a_token_has_a_bound,
                jobs_are_claimed_oldest_first_and_once,
                callers_take_turns,
                a_race_of_claims_gives_each_job_to_one,
                a_job_that_is_put_back_comes_before_all_others_of_its_caller,
                a_job_past_its_deadline_is_not_claimed_and_expires,
                only_lawful_moves_of_a_job_are_made,
                cancelling_ends_only_what_is_still_queued,
                waiting_for_an_end_ends_with_the_job,
                everybody_who_waits_for_an_end_is_woken,
                waiting_for_work_ends_when_a_job_is_queued_for_that_token,
                a_claim_that_waits_gets_what_is_queued_and_nothing_once_it_is_not_wanted,
                ended_jobs_and_expired_permits_are_forgotten_once_nobody_needs_them,
                content_is_stored_replaced_and_gone_with_its_ticket,
                a_signature_is_kept_beside_the_content_and_goes_with_its_ticket,
                content_that_is_moved_to_the_spool_directory_is_gone_from_the_store,
                spooled_files_are_listed_and_counted,
                jobs_are_listed_newest_first_by_state_and_caller,
                what_is_claimed_and_not_settled_is_listed,
                a_request_is_kept_once_for_each_caller_and_forgotten_when_it_expires,
                a_doubt_is_resolved_once_and_its_use_kept_or_given_back,
                queues_tell_how_many_wait_and_since_when,
                audit_records_are_chained_and_read_in_pages,
                the_end_of_a_job_is_recorded_with_it,
                a_claim_that_is_stale_settles_nothing,
                a_conflict_leaves_neither_audit_record_nor_content,
                a_conflict_concerns_only_its_own_commit,
                a_store_that_takes_changes_is_ready_whatever_it_refused,
                many_jobs_at_once_all_end_once,
                a_certificate_request_is_found_as_it_was_stored_and_changed_once_a_version,
                certificate_requests_are_listed_newest_first_as_the_filter_says,
                certificate_requests_are_due_in_the_order_of_their_time,
                a_certificate_that_becomes_active_takes_the_place_of_the_former_one,
                of_many_that_become_active_at_once_one_is,
                a_certificate_request_is_as_before_when_its_commit_fails,
                a_permit_that_is_asked_for_pays_for_nothing_before_it_is_granted,
                a_permit_is_decided_once_by_a_race,
                a_job_that_waits_for_consent_is_queued_when_it_is_given,
                a_job_that_waits_for_consent_ends_when_it_is_not_given,
                cancelling_a_job_that_waits_for_consent_withdraws_what_was_asked,
                waiting_for_a_decision_ends_with_it,
                a_caller_asks_for_no_more_permits_than_it_may_have,
                what_was_decided_is_undone_when_the_rest_of_the_commit_does_not_fit,
                a_caller_is_found_as_it_was_stored_and_gone_when_it_is_removed,
                of_two_who_change_a_caller_the_second_is_refused,
                a_change_of_a_caller_that_fails_later_in_its_commit_is_none,
                changes_of_callers_are_counted,
                an_operators_account_is_stored_once_changed_in_turn_and_removed,
                a_conflict_leaves_accounts_and_sessions_as_they_were,
                of_a_race_to_add_or_change_an_operator_one_wins,
                sessions_are_found_touched_listed_ended_and_forgotten_when_they_expired,
            ]
        );
    };
    ($store:ident, $new:expr, [$($promise:ident),+ $(,)?]) => {
        mod $store {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $promise() {
                    let (store, _kept) = $new.await;
                    promises::$promise(store).await;
                }
            )+
        }
    };
}

contract!(memory, async { (Arc::new(MemoryStore::new()) as AnyStore, ()) });
contract!(sqlite, sqlite_store());
contract!(postgres, postgres_store());
// What a store may promise beyond that.
contract!(sqlite_more, sqlite_store(), [a_job_that_a_claim_waits_for_is_claimed_in_the_commit_that_accepts_it]);

async fn sqlite_store() -> (AnyStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let settings = SqliteSettings::new(directory.path().join("sealgate.db"), GatewayId::random());
    (Arc::new(SqliteStore::open(settings).unwrap()), directory)
}

async fn postgres_store() -> (AnyStore, ()) {
    let url = tokio::task::spawn_blocking(|| Postgres::shared().new_database()).await.unwrap();
    let settings = PostgresSettings::new(&url, GatewayId::random()).unwrap();
    (Arc::new(PostgresStore::open(settings).await.unwrap()), ())
}
