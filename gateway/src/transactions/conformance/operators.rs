//! Votes, and what operators do by hand.

use std::collections::BTreeSet;

use notifyx_commit::{Intervened, Page, Resolve, Votes};
use notifyx_wire::rest::commit::{Heuristic, Standing, Voted};

use super::*;

/// Begun and decided to commit, long ago.
async fn committed(store: &Store) -> Gid {
    let begun = item();
    store.begin(std::slice::from_ref(&begun), Terms { lease: Duration::ZERO, ..terms() }).await.unwrap();
    store.decide(&[commit(begun.gid)]).await.unwrap();
    begun.gid
}

async fn quarantined(store: &Store) -> Gid {
    let gid = committed(store).await;
    let quarantine = Some("counter-2pc: lost it".to_owned());
    let again_in = Duration::from_secs(300);
    store.defer(&[Deferred { gid, tries: 1, refusals: 1, again_in, quarantine }]).await.unwrap();
    gid
}

fn resolved(gid: Gid) -> Resolve {
    let (by, reason) = ("Ann of Ops".parse().unwrap(), "ticket 7: restored the bäckup".parse().unwrap());
    Resolve { gid, outcome: Heuristic::RolledBack, by, reason }
}

async fn claimed(store: &Store) -> Vec<Gid> {
    let claim = Claim { owner: InstanceId::new(&clock()), lease: Duration::from_secs(60), limit: 100 };
    store.claim(claim).await.unwrap().into_iter().map(|record| record.gid).collect()
}

async fn all(store: &Store, standing: Standing) -> Vec<Gid> {
    let records = store.list(Page { standing, after: None, limit: 1_000 }).await.unwrap();
    records.into_iter().map(|record| record.gid).collect()
}

pub(super) async fn votes_are_kept_with_the_decision_they_led_to(store: Store) {
    let batch = items(3);
    store.begin(&batch, terms()).await.unwrap();
    let [a, b, c] = [batch[0].gid, batch[1].gid, batch[2].gid];
    let yes = Votes { persist: Some(Voted::Yes), counter: Some(Voted::Yes) };
    let mixed = Votes { persist: Some(Voted::No), counter: Some(Voted::Error) };
    assert_eq!(get(&store, a).await.votes, Votes::NONE);
    store
        .decide(&[VerdictOn { votes: yes, ..commit(a) }, VerdictOn { votes: mixed, ..abort(b) }, abort(c)])
        .await
        .unwrap();
    store.decide(&[VerdictOn { votes: mixed, ..abort(a) }]).await.unwrap();
    assert_eq!(get(&store, a).await.votes, yes, "of the decision that counted");
    assert_eq!((get(&store, b).await.votes, get(&store, c).await.votes), (mixed, Votes::NONE));
}

pub(super) async fn only_a_quarantined_transaction_is_resolved_and_once(store: Store) {
    let (open, gid, begun) = (committed(&store).await, quarantined(&store).await, item());
    store.begin(std::slice::from_ref(&begun), terms()).await.unwrap();
    for other in [open, begun.gid] {
        let before = get(&store, other).await;
        assert_eq!(store.resolve(&resolved(other)).await.unwrap(), Intervened::Refused(before.clone()));
        assert_eq!(get(&store, other).await, before);
    }
    assert_eq!(store.resolve(&resolved(item().gid)).await.unwrap(), Intervened::Unknown);

    ack(&store, gid, Parties::only(Party::Persist)).await;
    let Intervened::Done(record) = store.resolve(&resolved(gid)).await.unwrap() else { panic!("it is quarantined") };
    assert_eq!(get(&store, gid).await, record);
    let resolution = record.resolution.clone().unwrap();
    let wanted = resolved(gid);
    assert_eq!(
        (resolution.outcome, resolution.operator, resolution.reason),
        (Heuristic::RolledBack, wanted.by, wanted.reason)
    );
    assert_eq!((record.closed_at, record.quarantined), (Some(resolution.at), false));
    assert_eq!((record.state, record.acked), (State::Commit, Parties::only(Party::Persist)), "as it was");
    assert_eq!(record.reason.as_deref(), Some("counter-2pc: lost it"));

    let again = Resolve { outcome: Heuristic::Mixed, ..resolved(gid) };
    assert_eq!(store.resolve(&again).await.unwrap(), Intervened::Refused(record.clone()));
    assert_eq!(store.retry(gid).await.unwrap(), Intervened::Refused(record.clone()));
    // What comes late changes nothing.
    ack(&store, gid, Parties::BOTH).await;
    let again_in = Duration::ZERO;
    let quarantine = Some("again".to_owned());
    store.defer(&[Deferred { gid, tries: 9, refusals: 9, again_in, quarantine }]).await.unwrap();
    assert_eq!(get(&store, gid).await, record);
    assert_eq!(claimed(&store).await, [open], "nothing is tried again");
    assert_eq!(store.decide(&[abort(gid)]).await.unwrap(), [Some(State::Commit)], "the decision stays");
}

pub(super) async fn what_both_applied_is_closed_and_cannot_be_resolved(store: Store) {
    let gid = quarantined(&store).await;
    ack(&store, gid, Parties::BOTH).await;
    let record = get(&store, gid).await;
    assert_eq!(store.resolve(&resolved(gid)).await.unwrap(), Intervened::Refused(record.clone()));
    assert_eq!(store.retry(gid).await.unwrap(), Intervened::Refused(record));
}

pub(super) async fn a_resolution_and_an_ack_at_once_are_one_of_them(store: Store) {
    for _ in 0..20 {
        let gid = quarantined(&store).await;
        ack(&store, gid, Parties::only(Party::Persist)).await;
        let resolve = resolved(gid);
        let (intervened, ()) = tokio::join!(store.resolve(&resolve), ack(&store, gid, Parties::BOTH));
        let record = get(&store, gid).await;
        assert!(record.closed_at.is_some() && !record.quarantined);
        assert_eq!(record.resolution.is_some(), matches!(intervened.unwrap(), Intervened::Done(_)));
        assert_ne!(record.resolution.is_some(), record.acked == Parties::BOTH, "either, never both: {record:?}");
    }
}

pub(super) async fn a_resolved_transaction_counts_as_closed_and_is_trimmed(store: Store) {
    let gid = quarantined(&store).await;
    assert_eq!(store.figures().await.unwrap().quarantined, 1);
    store.resolve(&resolved(gid)).await.unwrap();
    assert_eq!(store.figures().await.unwrap(), notifyx_commit::Figures::default());
    assert_eq!(store.trim(Duration::from_secs(60), 10).await.unwrap(), 0, "closed just now");
    // Ids tell the time in milliseconds, and one of this very one is not old.
    while store.trim(Duration::ZERO, 10).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.find(gid).await.unwrap(), None);
}

pub(super) async fn a_retry_makes_it_due_now(store: Store) {
    let gid = quarantined(&store).await;
    assert_eq!(claimed(&store).await, [], "it pauses");
    let Intervened::Done(record) = store.retry(gid).await.unwrap() else { panic!("it is open") };
    assert!(record.quarantined, "until both have applied it");
    assert_eq!((record.tries, record.refusals), (1, 1));
    assert_eq!(claimed(&store).await, [gid]);
    // Also from whoever holds it.
    assert_eq!(claimed(&store).await, []);
    store.retry(gid).await.unwrap();
    assert_eq!(claimed(&store).await, [gid]);
    assert_eq!(store.retry(item().gid).await.unwrap(), Intervened::Unknown);
}

pub(super) async fn a_retry_takes_nothing_from_whoever_may_still_decide_it(store: Store) {
    let (fresh, late) = (item(), item());
    store.begin(std::slice::from_ref(&fresh), terms()).await.unwrap();
    store.begin(std::slice::from_ref(&late), Terms { deadline: Duration::ZERO, ..terms() }).await.unwrap();
    assert!(matches!(store.retry(fresh.gid).await.unwrap(), Intervened::Refused(_)));
    assert!(matches!(store.retry(late.gid).await.unwrap(), Intervened::Done(_)), "nobody can commit it any more");
    assert_eq!(claimed(&store).await, [late.gid]);
}

pub(super) async fn whoever_stops_leaves_no_lease_behind(store: Store) {
    let (stops, goes_on) = (terms(), terms());
    let (left, driven, closed) = (items(3), items(2), item());
    store.begin(&left, stops).await.unwrap();
    store.begin(&driven, goes_on).await.unwrap();
    store.begin(std::slice::from_ref(&closed), stops).await.unwrap();
    store.decide(&[commit(left[0].gid), commit(left[1].gid), commit(closed.gid)]).await.unwrap();
    ack(&store, closed.gid, Parties::BOTH).await;
    let quarantine = Some("why".to_owned());
    let again_in = Duration::from_secs(300);
    store.defer(&[Deferred { gid: left[1].gid, tries: 1, refusals: 0, again_in, quarantine }]).await.unwrap();
    store.release(stops.owner).await.unwrap();
    let taken: BTreeSet<Gid> = claimed(&store).await.into_iter().collect();
    assert_eq!(taken, BTreeSet::from([left[0].gid, left[2].gid]), "what is quarantined keeps its pause");
    store.release(stops.owner).await.unwrap();
    assert_eq!(claimed(&store).await, [], "it has another owner now");
}

pub(super) async fn a_listing_shows_what_stands_so(store: Store) {
    let (fresh, late, aborted) = (item(), item(), item());
    store.begin(&[fresh.clone(), aborted.clone()], terms()).await.unwrap();
    store.begin(std::slice::from_ref(&late), overdue()).await.unwrap();
    store.decide(&[abort(aborted.gid)]).await.unwrap();
    ack(&store, aborted.gid, Parties::BOTH).await;
    let (open, held, closed, gone) =
        (committed(&store).await, quarantined(&store).await, committed(&store).await, quarantined(&store).await);
    ack(&store, closed, Parties::BOTH).await;
    store.resolve(&resolved(gone)).await.unwrap();
    for (standing, mut expected) in [
        (Standing::Open, vec![fresh.gid, late.gid, open, held]),
        (Standing::InDoubt, vec![late.gid]),
        (Standing::Quarantined, vec![held]),
        (Standing::Preparing, vec![fresh.gid, late.gid]),
        (Standing::Committed, vec![open, held, closed, gone]),
        (Standing::Aborted, vec![aborted.gid]),
        (Standing::Resolved, vec![gone]),
        (Standing::All, vec![fresh.gid, late.gid, aborted.gid, open, held, closed, gone]),
    ] {
        expected.sort();
        assert_eq!(all(&store, standing).await, expected, "{standing}");
    }
}

pub(super) async fn a_listing_comes_in_pages(store: Store) {
    let batch = items(25);
    store.begin(&batch, terms()).await.unwrap();
    let mut expected: Vec<Gid> = batch.iter().map(|item| item.gid).collect();
    expected.sort();
    for standing in [Standing::Open, Standing::All] {
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(Page { standing, after, limit: 10 }).await.unwrap();
            let Some(last) = page.last() else { break };
            assert!(page.len() <= 10);
            after = Some(last.gid);
            listed.extend(page.into_iter().map(|record| record.gid));
        }
        assert_eq!(listed, expected);
    }
}
