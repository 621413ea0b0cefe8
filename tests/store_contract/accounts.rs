//! Operators' accounts and sessions.

use sealgate::domain::{
    caller::KeyAccess,
    operator::{Operator, OperatorAccount, OperatorSession, PasswordHash, Role, SessionId},
};

use super::parts::*;

fn account(name: &str) -> OperatorAccount {
    OperatorAccount {
        operator: Operator { name: name.parse().unwrap(), role: Role::Approver, keys: KeyAccess::Only(vec!["seal".parse().unwrap()]) },
        password: PasswordHash::new("$argon2id$…".to_owned()),
        disabled: false,
        added: NOW,
        epoch: NOW,
        version: 0,
    }
}

fn session(of: &OperatorAccount, token: &[u8], began: u64, expires: Timestamp) -> OperatorSession {
    OperatorSession {
        id: SessionId::of(token),
        operator: of.operator.name.clone(),
        epoch: of.epoch,
        began: Timestamp::from_millis(began),
        seen: NOW,
        expires,
        address: Some("2001:db8::1".parse().unwrap()),
    }
}

async fn find(store: &AnyStore, of: &OperatorAccount) -> Option<OperatorAccount> {
    store.find_operator(&of.operator.name).await.unwrap()
}

pub async fn an_operators_account_is_stored_once_changed_in_turn_and_removed(store: AnyStore) {
    let (ann, bob) = (account("ann"), account("bob"));
    commit(&store, vec![Change::InsertOperator(bob.clone()), Change::InsertOperator(ann.clone())]).await;
    assert_eq!(conflict(&store, vec![Change::InsertOperator(account("ann"))]).await, Conflict::OperatorKnown);
    assert_eq!(store.list_operators().await.unwrap(), [ann.clone(), bob.clone()]);

    let changed = OperatorAccount {
        operator: Operator { role: Role::Administrator, keys: KeyAccess::All, ..ann.operator.clone() },
        password: PasswordHash::new("$argon2id$another".to_owned()),
        disabled: true,
        epoch: LATER,
        ..ann.clone()
    };
    commit(&store, vec![Change::UpdateOperator(changed.clone())]).await;
    assert_eq!(find(&store, &ann).await, Some(OperatorAccount { version: 1, ..changed.clone() }));
    assert_eq!(conflict(&store, vec![Change::UpdateOperator(changed)]).await, Conflict::OperatorChanged);

    let name = ann.operator.name.clone();
    commit(&store, vec![Change::DeleteOperator(name.clone())]).await;
    assert_eq!(find(&store, &ann).await, None);
    assert_eq!(conflict(&store, vec![Change::DeleteOperator(name)]).await, Conflict::OperatorGone);
    assert_eq!(conflict(&store, vec![Change::UpdateOperator(ann.clone())]).await, Conflict::OperatorGone);
    commit(&store, vec![Change::InsertOperator(ann.clone())]).await;
    assert_eq!(find(&store, &ann).await, Some(ann));
}

pub async fn a_conflict_leaves_accounts_and_sessions_as_they_were(store: AnyStore) {
    let (ann, bob) = (account("ann"), account("bob"));
    let open = session(&ann, b"one", 1, LATER);
    commit(&store, vec![Change::InsertOperator(ann.clone()), Change::InsertSession(open.clone())]).await;
    let changes = vec![
        Change::UpdateOperator(OperatorAccount { disabled: true, ..ann.clone() }),
        Change::InsertOperator(bob.clone()),
        Change::EndSession(open.id),
        Change::InsertSession(session(&ann, b"two", 2, LATER)),
        Change::DeleteTicket(TicketId::random()),
    ];
    assert_eq!(conflict(&store, changes).await, Conflict::TicketGone);
    assert_eq!((find(&store, &ann).await, find(&store, &bob).await), (Some(ann.clone()), None));
    assert_eq!(store.list_sessions(&ann.operator.name, NOW).await.unwrap(), [open]);
}

pub async fn of_a_race_to_add_or_change_an_operator_one_wins(store: AnyStore) {
    let added = race(8, |_| {
        let store = Arc::clone(&store);
        async move { store.commit(vec![Change::InsertOperator(account("ann"))]).await.is_ok() }
    })
    .await;
    assert_eq!(added.into_iter().filter(|added| *added).count(), 1);
    let stored = find(&store, &account("ann")).await.unwrap();
    let changed = race(8, |_| {
        let (store, stored) = (Arc::clone(&store), stored.clone());
        async move { store.commit(vec![Change::UpdateOperator(stored)]).await.is_ok() }
    })
    .await;
    assert_eq!(changed.into_iter().filter(|changed| *changed).count(), 1);
    assert_eq!(find(&store, &stored).await.unwrap().version, 1);
}

pub async fn sessions_are_found_touched_listed_ended_and_forgotten_when_they_expired(store: AnyStore) {
    let (ann, bob) = (account("ann"), account("bob"));
    let [first, second, over] =
        [(b"1", 1, LATER), (b"2", 2, LATER), (b"3", 3, NOW)].map(|(token, began, end)| session(&ann, token, began, end));
    let others = session(&bob, b"4", 4, LATER);
    commit(&store, [&first, &second, &over, &others].map(|session| Change::InsertSession(session.clone())).to_vec()).await;
    assert_eq!(store.find_session(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(store.list_sessions(&ann.operator.name, NOW).await.unwrap(), [second.clone(), first.clone()]);

    let seen = Timestamp::from_millis(NOW.as_millis() + 1);
    let touch = |seen| Change::TouchSession { id: first.id, seen };
    commit(&store, vec![touch(seen), touch(NOW), Change::TouchSession { id: SessionId::of(b"none"), seen }]).await;
    assert_eq!(store.find_session(first.id).await.unwrap().unwrap().seen, seen);

    commit(&store, vec![Change::EndSession(second.id), Change::EndSession(second.id)]).await;
    assert_eq!(store.find_session(second.id).await.unwrap(), None);
    assert_eq!(store.forget_ended(Timestamp::from_millis(NOW.as_millis() + 1), 100).await.unwrap(), 1);
    assert_eq!(store.find_session(over.id).await.unwrap(), None);
    assert_eq!(store.find_session(others.id).await.unwrap(), Some(others));
}
