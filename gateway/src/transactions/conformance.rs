//! What the coordinator relies on, held against SQLite and a real Postgres.

mod operators;

use std::{sync::Arc, time::Duration};

use notifyx_commit::{
    Acked, Begin, Begun, Claim, CoordinatorStore, Deferred, Parties, Party, Record, RequestHash, State, Terms, Verdict,
    VerdictOn, Votes,
};
use notifyx_database::Database;
use notifyx_model::{Clock, Gid, InstanceId, Timestamp, UserId, first_id_at};

use super::MIGRATIONS;
use operators::{
    a_listing_comes_in_pages, a_listing_shows_what_stands_so, a_resolution_and_an_ack_at_once_are_one_of_them,
    a_resolved_transaction_counts_as_closed_and_is_trimmed, a_retry_makes_it_due_now,
    a_retry_takes_nothing_from_whoever_may_still_decide_it, only_a_quarantined_transaction_is_resolved_and_once,
    votes_are_kept_with_the_decision_they_led_to, what_both_applied_is_closed_and_cannot_be_resolved,
    whoever_stops_leaves_no_lease_behind,
};

type Store = Arc<dyn CoordinatorStore>;

async fn open(database: &Database) -> Store {
    super::open(database, Clock::system())
}

notifyx_database::conformance!(open, &MIGRATIONS;
    a_begun_transaction_is_found,
    a_key_answers_for_its_request_until_it_is_aborted,
    a_gid_is_begun_once,
    one_key_begun_by_many_at_once_is_begun_once,
    a_decision_is_final,
    nothing_commits_at_or_after_its_deadline,
    those_who_decide_at_once_agree,
    both_acks_close_and_nothing_else_does,
    acks_at_once_are_all_kept,
    only_what_is_overdue_is_claimed_and_by_one_only,
    a_deferred_transaction_waits_and_may_be_quarantined,
    only_what_is_closed_long_enough_is_trimmed,
    figures_count_what_is_open,
    votes_are_kept_with_the_decision_they_led_to,
    only_a_quarantined_transaction_is_resolved_and_once,
    what_both_applied_is_closed_and_cannot_be_resolved,
    a_resolution_and_an_ack_at_once_are_one_of_them,
    a_resolved_transaction_counts_as_closed_and_is_trimmed,
    a_retry_makes_it_due_now,
    a_retry_takes_nothing_from_whoever_may_still_decide_it,
    whoever_stops_leaves_no_lease_behind,
    a_listing_shows_what_stands_so,
    a_listing_comes_in_pages,
);

fn clock() -> Clock {
    Clock::system()
}

/// Long enough for any test.
fn terms() -> Terms {
    let minute = Duration::from_secs(60);
    Terms { owner: InstanceId::new(&clock()), deadline: minute, lease: minute }
}

/// Already overdue.
fn overdue() -> Terms {
    Terms { deadline: Duration::ZERO, lease: Duration::ZERO, ..terms() }
}

fn item() -> Begin {
    Begin { gid: Gid::new(&clock()), user_id: UserId::new(&clock()), idem_key: None, request: RequestHash([7; 32]) }
}

fn items(count: usize) -> Vec<Begin> {
    (0..count).map(|_| item()).collect()
}

/// The same request under the same key, as a client repeats it.
fn again(item: &Begin) -> Begin {
    Begin { gid: Gid::new(&clock()), ..item.clone() }
}

fn commit(gid: Gid) -> VerdictOn {
    VerdictOn { gid, verdict: Verdict::Commit, votes: Votes::NONE }
}

fn abort(gid: Gid) -> VerdictOn {
    VerdictOn { gid, verdict: Verdict::Abort { reason: "no".into() }, votes: Votes::NONE }
}

async fn get(store: &Store, gid: Gid) -> Record {
    store.find(gid).await.unwrap().expect("it was begun")
}

async fn ack(store: &Store, gid: Gid, by: Parties) {
    store.acknowledge(&[Acked { gid, by }]).await.unwrap();
}

async fn a_begun_transaction_is_found(store: Store) {
    let begun = Begin { idem_key: Some("kéy 1".into()), ..item() };
    assert_eq!(store.begin(std::slice::from_ref(&begun), terms()).await.unwrap(), [Begun::New]);
    let record = get(&store, begun.gid).await;
    assert_eq!((record.state, record.acked, record.quarantined), (State::Preparing, Parties::NONE, false));
    assert_eq!((record.user_id, record.request, record.closed_at), (begun.user_id, begun.request, None));
    assert_eq!(record.deadline.since(record.created_at), Duration::from_secs(60));
    let by_key = store.find_by_key(begun.user_id, "kéy 1").await.unwrap();
    assert_eq!(by_key, Some(record));
    assert_eq!(store.find(item().gid).await.unwrap(), None);
    assert_eq!(store.find_by_key(begun.user_id, "key 2").await.unwrap(), None);
    assert_eq!(store.find_by_key(item().user_id, "kéy 1").await.unwrap(), None);
    assert_eq!(store.begin(&[], terms()).await.unwrap(), []);
}

async fn a_key_answers_for_its_request_until_it_is_aborted(store: Store) {
    let first = Begin { idem_key: Some("k".into()), ..item() };
    let repeated = again(&first);
    let other = Begin { request: RequestHash([8; 32]), ..again(&first) };
    let of_bob = Begin { user_id: item().user_id, ..again(&first) };
    let all = [repeated.clone(), first.clone(), other.clone(), of_bob.clone(), item()];
    // In one batch as in several: whoever comes first holds the key.
    let answers = store.begin(&all, terms()).await.unwrap();
    let holder = match &answers[..2] {
        [Begun::New, Begun::Known(record)] | [Begun::Known(record), Begun::New] => record.gid,
        others => panic!("{others:?}"),
    };
    assert_eq!(answers[2], Begun::Mismatch(holder));
    assert_eq!(answers[3..], [Begun::New, Begun::New]);
    let once_more = store.begin(&[again(&first), again(&other)], terms()).await.unwrap();
    assert!(matches!(&once_more[0], Begun::Known(record) if record.gid == holder), "{once_more:?}");
    assert_eq!(once_more[1], Begun::Mismatch(holder));

    store.decide(&[abort(holder)]).await.unwrap();
    assert_eq!(store.find_by_key(first.user_id, "k").await.unwrap(), None);
    let freed = again(&other);
    assert_eq!(store.begin(std::slice::from_ref(&freed), terms()).await.unwrap(), [Begun::New]);
    store.decide(&[commit(freed.gid)]).await.unwrap();
    ack(&store, freed.gid, Parties::BOTH).await;
    let after = store.begin(&[again(&other)], terms()).await.unwrap();
    assert!(matches!(&after[0], Begun::Known(record) if record.state == State::Commit), "closed or not: {after:?}");
}

async fn a_gid_is_begun_once(store: Store) {
    let first = item();
    store.begin(std::slice::from_ref(&first), terms()).await.unwrap();
    let other = Begin { request: RequestHash([8; 32]), ..first.clone() };
    let answers = store.begin(&[first.clone(), other, item()], terms()).await.unwrap();
    assert!(matches!(&answers[0], Begun::Known(record) if record.gid == first.gid), "{answers:?}");
    assert_eq!(answers[1..], [Begun::Mismatch(first.gid), Begun::New]);
}

async fn one_key_begun_by_many_at_once_is_begun_once(store: Store) {
    let keyed = |key: usize| Begin { idem_key: Some(key.to_string()), ..item() };
    let originals: Vec<Begin> = (0..8).map(keyed).collect();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        // Each in another order, as callers come.
        let mut batch: Vec<Begin> = originals.iter().map(again).collect();
        batch.rotate_left(caller);
        let store = store.clone();
        callers.spawn(async move { store.begin(&batch, terms()).await.unwrap() });
    }
    let answers = callers.join_all().await.concat();
    let new = answers.iter().filter(|begun| **begun == Begun::New).count();
    let known = answers.iter().filter(|begun| matches!(begun, Begun::Known(_))).count();
    assert_eq!((new, known), (8, 56));
}

async fn a_decision_is_final(store: Store) {
    let batch = items(3);
    store.begin(&batch, terms()).await.unwrap();
    let [a, b, c] = [batch[0].gid, batch[1].gid, batch[2].gid];
    let nobody = item().gid;
    let states = store.decide(&[commit(c), abort(a), commit(nobody)]).await.unwrap();
    assert_eq!(states, [Some(State::Commit), Some(State::Abort), None]);
    let states = store.decide(&[commit(a), commit(b), abort(c)]).await.unwrap();
    assert_eq!(states, [Some(State::Abort), Some(State::Commit), Some(State::Commit)], "the row is obeyed");
    assert_eq!(get(&store, a).await.reason.as_deref(), Some("no"));
    assert_eq!(get(&store, c).await.reason, None);
}

async fn nothing_commits_at_or_after_its_deadline(store: Store) {
    let late = item();
    store.begin(std::slice::from_ref(&late), overdue()).await.unwrap();
    assert_eq!(store.decide(&[commit(late.gid)]).await.unwrap(), [Some(State::Abort)]);
    assert_eq!(get(&store, late.gid).await.reason.as_deref(), Some(Verdict::TOO_LATE));
}

async fn those_who_decide_at_once_agree(store: Store) {
    let batch = items(100);
    store.begin(&batch, terms()).await.unwrap();
    let mut deciders = tokio::task::JoinSet::new();
    for decider in 0..6 {
        let mut gids: Vec<Gid> = batch.iter().map(|item| item.gid).collect();
        gids.rotate_left(decider * 17);
        let store = store.clone();
        deciders.spawn(async move {
            let verdict = if decider.is_multiple_of(2) { commit } else { abort };
            let verdicts: Vec<VerdictOn> = gids.iter().map(|gid| verdict(*gid)).collect();
            let states = store.decide(&verdicts).await.unwrap();
            let mut told: Vec<_> = gids.into_iter().zip(states).collect();
            told.sort_by_key(|(gid, _)| *gid);
            told
        });
    }
    let told = deciders.join_all().await;
    assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "every decider was told the same");
}

async fn both_acks_close_and_nothing_else_does(store: Store) {
    let batch = items(2);
    store.begin(&batch, terms()).await.unwrap();
    let [gid, preparing] = [batch[0].gid, batch[1].gid];
    store.decide(&[commit(gid)]).await.unwrap();
    let quarantine = Some("counter-2pc: lost it".to_owned());
    let deferred = Deferred { gid, tries: 1, refusals: 0, again_in: Duration::from_secs(60), quarantine };
    store.defer(&[deferred]).await.unwrap();
    ack(&store, gid, Parties::only(Party::Persist)).await;
    let record = get(&store, gid).await;
    assert_eq!((record.acked.count(), record.closed_at, record.quarantined), (1, None, true));
    ack(&store, gid, Parties::only(Party::Counter)).await;
    let record = get(&store, gid).await;
    assert_eq!((record.acked, record.quarantined), (Parties::BOTH, false));
    let closed_at = record.closed_at.expect("both have applied it");
    ack(&store, gid, Parties::BOTH).await;
    assert_eq!(get(&store, gid).await.closed_at, Some(closed_at), "closed once");
    store
        .acknowledge(&[Acked { gid: preparing, by: Parties::BOTH }, Acked { gid: item().gid, by: Parties::BOTH }])
        .await
        .unwrap();
    assert_eq!(get(&store, preparing).await.closed_at, None, "nothing is decided, so nothing was applied");
}

async fn acks_at_once_are_all_kept(store: Store) {
    let batch = items(50);
    store.begin(&batch, terms()).await.unwrap();
    store.decide(&batch.iter().map(|item| commit(item.gid)).collect::<Vec<_>>()).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for party in Party::ALL {
        let mut acks: Vec<Acked> = batch.iter().map(|item| Acked { gid: item.gid, by: Parties::only(party) }).collect();
        if party == Party::Counter {
            acks.reverse();
        }
        let store = store.clone();
        writers.spawn(async move { store.acknowledge(&acks).await.unwrap() });
    }
    writers.join_all().await;
    assert_eq!(store.figures().await.unwrap().open, 0);
}

async fn only_what_is_overdue_is_claimed_and_by_one_only(store: Store) {
    let (abandoned, driven, closed) = (items(40), items(3), item());
    store.begin(&driven, terms()).await.unwrap();
    store.begin(&abandoned, overdue()).await.unwrap();
    store.begin(std::slice::from_ref(&closed), overdue()).await.unwrap();
    store.decide(&[abort(closed.gid)]).await.unwrap();
    ack(&store, closed.gid, Parties::BOTH).await;
    let claim = |limit| Claim { owner: InstanceId::new(&clock()), lease: Duration::from_secs(60), limit };
    let mut claimers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        claimers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let page = store.claim(claim(7)).await.unwrap();
                assert!(page.len() <= 7);
                if page.is_empty() {
                    return mine;
                }
                mine.extend(page.into_iter().map(|record| record.gid));
                assert!(mine.len() <= 40, "more than there was to claim");
            }
        });
    }
    let mut claimed = claimers.join_all().await.concat();
    claimed.extend(store.claim(claim(100)).await.unwrap().into_iter().map(|record| record.gid));
    claimed.sort();
    let mut expected: Vec<Gid> = abandoned.iter().map(|item| item.gid).collect();
    expected.sort();
    assert_eq!(claimed, expected, "each once");
    store.begin(&items(1), overdue()).await.unwrap();
    let again = Claim { lease: Duration::ZERO, ..claim(1) };
    let first = store.claim(again).await.unwrap();
    assert_eq!(store.claim(again).await.unwrap()[0].gid, first[0].gid, "a lease that ran out is claimed again");
}

async fn a_deferred_transaction_waits_and_may_be_quarantined(store: Store) {
    let batch = items(2);
    store.begin(&batch, overdue()).await.unwrap();
    let [gid, other] = [batch[0].gid, batch[1].gid];
    store.decide(&[abort(gid), abort(other)]).await.unwrap();
    let deferred = |gid, again_in, quarantine: Option<&str>| Deferred {
        gid,
        tries: 12,
        refusals: 10,
        again_in,
        quarantine: quarantine.map(str::to_owned),
    };
    let minute = Duration::from_secs(60);
    store.defer(&[deferred(gid, minute, Some("why")), deferred(other, Duration::ZERO, None)]).await.unwrap();
    let claim = Claim { owner: InstanceId::new(&clock()), lease: minute, limit: 10 };
    let claimed = store.claim(claim).await.unwrap();
    assert_eq!(claimed.iter().map(|record| record.gid).collect::<Vec<_>>(), [other]);
    assert_eq!((claimed[0].tries, claimed[0].refusals, claimed[0].reason.as_deref()), (12, 10, Some("no")));
    let record = get(&store, gid).await;
    assert_eq!((record.quarantined, record.reason.as_deref(), record.state), (true, Some("why"), State::Abort));
    store.defer(&[deferred(gid, minute, None)]).await.unwrap();
    let record = get(&store, gid).await;
    assert_eq!((record.quarantined, record.reason.as_deref()), (true, Some("why")), "it stays in quarantine");
}

async fn only_what_is_closed_long_enough_is_trimmed(store: Store) {
    // Made in 2020.
    let old = |n: i64| Gid::from_uuid(first_id_at(Timestamp::from_micros(1_577_836_800_000_000 + n * 1_000)));
    let batch: Vec<Begin> = (0..4).map(|n| Begin { gid: old(n), ..item() }).collect();
    store.begin(&batch, terms()).await.unwrap();
    store.decide(&batch[..3].iter().map(|item| commit(item.gid)).collect::<Vec<_>>()).await.unwrap();
    for item in &batch[..2] {
        ack(&store, item.gid, Parties::BOTH).await;
    }
    ack(&store, batch[2].gid, Parties::only(Party::Persist)).await;
    assert_eq!(store.trim(Duration::from_secs(7 * 24 * 3_600), 10).await.unwrap(), 0, "closed just now");
    assert_eq!(store.trim(Duration::ZERO, 1).await.unwrap(), 1, "within the limit");
    assert_eq!(store.trim(Duration::ZERO, 10).await.unwrap(), 1);
    assert!(store.find(batch[2].gid).await.unwrap().is_some(), "an unclosed one is never deleted");
    assert!(store.find(batch[3].gid).await.unwrap().is_some());
}

async fn figures_count_what_is_open(store: Store) {
    assert_eq!(store.figures().await.unwrap(), notifyx_commit::Figures::default());
    let (fresh, late) = (items(2), items(3));
    store.begin(&fresh, terms()).await.unwrap();
    store.begin(&late, overdue()).await.unwrap();
    store.decide(&[abort(late[0].gid), abort(late[1].gid)]).await.unwrap();
    ack(&store, late[0].gid, Parties::BOTH).await;
    let quarantine = Some("why".to_owned());
    let again_in = Duration::from_secs(60);
    store.defer(&[Deferred { gid: late[1].gid, tries: 1, refusals: 0, again_in, quarantine }]).await.unwrap();
    let figures = store.figures().await.unwrap();
    assert_eq!((figures.open, figures.in_doubt, figures.quarantined), (4, 2, 1));
    assert!(figures.oldest > Duration::ZERO && figures.oldest < Duration::from_secs(60), "{figures:?}");
}
