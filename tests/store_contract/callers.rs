//! Callers that operators have added.

use sealgate::domain::{
    caller::{Account, ConsentPolicy, KeyAccess, Rate, Scope},
    certificate::ClientCertificateId,
    stored_caller::{StoredCaller, StoredKey},
};

use super::parts::*;

fn stored(name: &str) -> StoredCaller {
    let text = |text: &str| text.parse().unwrap();
    StoredCaller {
        id: caller(name),
        keys: KeyAccess::Only(vec!["seal".parse().unwrap()]),
        default_key: Some("seal".parse().unwrap()),
        consent: ConsentPolicy::Auto,
        consent_for: [("seal".parse().unwrap(), ConsentPolicy::TwoOperators)].into(),
        scopes: [Scope::TicketApi, Scope::CryptoCertRequestEio].into_iter().collect(),
        account: Some(Account {
            login: text("ivanov"), full_name: text("Іваненко Іван"), organisation: text("ТОВ Ромашка"), eio: true
        }),
        rate: Some(Rate { per_second: 1, burst: 2 }),
        api_keys: vec![StoredKey { sha256: Sha256::of(name.as_bytes()), made: NOW, expires: Some(LATER) }],
        needs_key: true,
        client_certificate: Some(ClientCertificateId::Subject("CN=erp,O=Example".parse().unwrap())),
        origins: vec!["https://page.example".to_owned()],
        added: NOW,
        revoked: None,
        version: 0,
    }
}

async fn refused(store: &AnyStore, change: Change) -> Conflict {
    match store.commit(vec![change]).await.unwrap_err() {
        StoreError::Conflict(conflict) => conflict,
        other => panic!("{other}"),
    }
}

pub async fn a_caller_is_found_as_it_was_stored_and_gone_when_it_is_removed(store: AnyStore) {
    let erp = stored("erp");
    store.commit(vec![Change::InsertCaller(erp.clone()), Change::InsertCaller(stored("crm"))]).await.unwrap();
    assert_eq!(store.find_caller(&erp.id).await.unwrap(), Some(erp.clone()));
    assert_eq!(store.list_callers().await.unwrap(), [stored("crm"), erp.clone()]);
    assert_eq!(refused(&store, Change::InsertCaller(erp.clone())).await, Conflict::CallerKnown);
    store.commit(vec![Change::RemoveCaller(erp.id.clone())]).await.unwrap();
    assert_eq!(store.find_caller(&erp.id).await.unwrap(), None);
    assert_eq!(refused(&store, Change::RemoveCaller(erp.id.clone())).await, Conflict::CallerGone);
    assert_eq!(refused(&store, Change::UpdateCaller(erp)).await, Conflict::CallerGone);
}

pub async fn of_two_who_change_a_caller_the_second_is_refused(store: AnyStore) {
    let mut erp = stored("erp");
    store.commit(vec![Change::InsertCaller(erp.clone())]).await.unwrap();
    let stale = erp.clone();
    erp.revoke(NOW);
    store.commit(vec![Change::UpdateCaller(erp.clone())]).await.unwrap();
    assert_eq!(refused(&store, Change::UpdateCaller(stale)).await, Conflict::CallerChanged);
    let found = store.find_caller(&erp.id).await.unwrap().unwrap();
    assert_eq!((found.revoked, found.api_keys.len(), found.version), (Some(NOW), 0, 1));
}

pub async fn a_change_of_a_caller_that_fails_later_in_its_commit_is_none(store: AnyStore) {
    let erp = stored("erp");
    let changes = vec![Change::InsertCaller(erp.clone()), Change::RemoveCaller(caller("nobody"))];
    assert!(store.commit(changes).await.is_err());
    assert_eq!(store.find_caller(&erp.id).await.unwrap(), None);
}

pub async fn changes_of_callers_are_counted(store: AnyStore) {
    let mut changes = store.caller_changes();
    changes.mark_unchanged();
    store.commit(vec![Change::InsertCaller(stored("erp"))]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.unwrap().unwrap();
}
