//! What operators can do to callers, and that it is in effect at once.

use super::*;
use crate::{
    domain::caller::{Rate, Scopes},
    store::memory::MemoryStore,
};

const PAGE: &str = "https://page.example";

fn configured(id: &str, key: &str) -> CallerEntry {
    let mut caller = entry(&StoredCaller::of(new(id), None, Timestamp::from_millis(0)), &settings()).unwrap();
    caller.api_keys = Some(vec![ApiKeyHash::of(key).into()]);
    caller
}

fn settings() -> BookSettings {
    BookSettings { keys: vec!["seal".parse().unwrap()], takes_certificates: true, permit_uses_max: 5 }
}

fn new(id: &str) -> NewCaller {
    NewCaller {
        id: id.parse().unwrap(),
        keys: KeyAccess::All,
        default_key: None,
        consent: ConsentPolicy::Auto,
        consent_for: Default::default(),
        scopes: Scopes::default(),
        account: None,
        rate: None,
        with_api_key: true,
        expires: None,
        client_certificate: None,
        origins: Vec::new(),
    }
}

async fn book(store: &Arc<dyn Store>) -> CallerBook {
    CallerBook::open(vec![configured("ci", "ci-key")], settings(), Arc::clone(store)).await.unwrap()
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn who(book: &CallerBook, key: &str) -> Option<String> {
    let authorization = format!("Bearer {key}");
    let credentials = Credentials { authorization: Some(&authorization), ..Credentials::default() };
    book.identify(credentials).ok().map(|caller| caller.id.to_string())
}

fn id(text: &str) -> CallerId {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_caller_is_known_from_the_moment_it_is_added_until_it_is_revoked() {
    let store = store();
    let book = book(&store).await;
    let key = book.add(new("erp"), "ann").await.unwrap().unwrap();
    assert_eq!((who(&book, key.reveal()).as_deref(), who(&book, "ci-key").as_deref()), (Some("erp"), Some("ci")));
    // A gateway that starts later knows it, too.
    assert_eq!(who(&self::book(&store).await, key.reveal()).as_deref(), Some("erp"));
    book.revoke(&id("erp"), "ann").await.unwrap();
    assert_eq!(who(&book, key.reveal()), None);
    assert!(!book.contains(&id("erp")) && book.find(&id("erp")).await.unwrap().caller.revoked.is_some());
    book.remove(&id("erp"), "ann").await.unwrap();
    assert_eq!(book.find(&id("erp")).await.unwrap_err(), CallerError::Missing(id("erp")));
}

#[tokio::test]
async fn both_keys_are_good_for_the_grace_and_without_one_the_new_one_alone() {
    let store = store();
    let book = book(&store).await;
    let first = book.add(new("erp"), "ann").await.unwrap().unwrap();
    let second = book.rotate(&id("erp"), Duration::from_secs(3600), None, "ann").await.unwrap();
    assert!(who(&book, first.reveal()).is_some() && who(&book, second.reveal()).is_some());
    let third = book.rotate(&id("erp"), Duration::ZERO, None, "ann").await.unwrap();
    assert_eq!([&first, &second, &third].map(|key| who(&book, key.reveal()).is_some()), [false, false, true]);
    assert_eq!(book.rotate(&id("erp"), GRACE_MAX + Duration::from_secs(1), None, "ann").await.unwrap_err(), CallerError::Grace);
}

#[tokio::test]
async fn who_looks_after_callers_stands_in_the_audit_log_and_no_key_does() {
    let store = store();
    let book = book(&store).await;
    let key = book.add(new("erp"), "ann").await.unwrap().unwrap();
    book.rotate(&id("erp"), Duration::ZERO, None, "bob").await.unwrap();
    book.revoke(&id("erp"), "cyd").await.unwrap();
    book.remove(&id("erp"), "dan").await.unwrap();
    let gateway = store.audit_head().await.unwrap().gateway;
    let records = store.audit_records(gateway, 1, 10).await.unwrap();
    let said = |record: &str, words: &[&str]| words.iter().all(|word| record.contains(word));
    let expected = [("added", "ann"), ("rotated", "bob"), ("revoked", "cyd"), ("removed", "dan")];
    assert_eq!(records.len(), expected.len());
    for (record, (what, by)) in records.iter().zip(expected) {
        assert!(said(&record.text, &["caller-changed", "erp", what, by]), "{}", record.text);
        assert!(!record.text.contains(key.reveal()) && !record.text.contains(&ApiKeyHash::of(key.reveal()).to_string()));
    }
}

#[tokio::test]
async fn callers_of_the_configuration_are_listed_and_changed_there_only() {
    let store = store();
    let book = book(&store).await;
    let ci = || CallerError::Configured(id("ci"));
    assert_eq!(book.add(new("ci"), "ann").await.unwrap_err(), ci());
    assert_eq!(book.rotate(&id("ci"), Duration::ZERO, None, "ann").await.unwrap_err(), ci());
    assert_eq!(book.revoke(&id("ci"), "ann").await.unwrap_err(), ci());
    assert_eq!(book.remove(&id("ci"), "ann").await.unwrap_err(), ci());
    book.add(new("erp"), "ann").await.unwrap();
    let listed: Vec<_> = book.list().await.unwrap().into_iter().map(|listed| (listed.caller.id.to_string(), listed.configured)).collect();
    assert_eq!(listed, [("ci".to_owned(), true), ("erp".to_owned(), false)]);
}

#[tokio::test]
async fn a_name_in_both_places_stops_the_start_and_can_be_taken_away() {
    let store = store();
    book(&store).await.add(new("erp"), "ann").await.unwrap();
    let entries = || vec![configured("erp", "other-key")];
    let both = CallerBook::open(entries(), settings(), Arc::clone(&store)).await.err().unwrap();
    assert_eq!(both, CallerError::Twice(id("erp")));
    assert!(both.to_string().contains("sealgate callers remove erp"), "{both}");
    let desk = CallerBook::open_to_change(entries(), settings(), Arc::clone(&store)).await.unwrap();
    assert!(desk.find(&id("erp")).await.unwrap().problem.is_some());
    desk.remove(&id("erp"), "ann").await.unwrap();
    assert!(CallerBook::open(entries(), settings(), store).await.is_ok());
}

#[tokio::test]
async fn what_another_gateway_of_the_store_does_is_heard_of() {
    let store = store();
    let (here, there) = (Arc::new(book(&store).await), book(&store).await);
    let following = tokio::spawn({
        let here = Arc::clone(&here);
        async move { here.follow().await }
    });
    let key = there.add(new("erp"), "ann").await.unwrap().unwrap();
    let known = |wanted: bool| {
        let (here, key) = (&here, &key);
        async move {
            while who(here, key.reveal()).is_some() != wanted {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(Duration::from_secs(60), known(true)).await.unwrap();
    there.revoke(&id("erp"), "ann").await.unwrap();
    timeout(Duration::from_secs(60), known(false)).await.unwrap();
    following.abort();
}

#[tokio::test]
async fn a_caller_that_would_be_of_no_use_or_no_good_is_refused() {
    type Edit = fn(&mut NewCaller);
    let refused: [(Edit, CallerError); 13] = [
        (|new| new.with_api_key = false, CallerError::Nameless),
        (|new| (new.with_api_key, new.origins) = (false, vec![PAGE.to_owned()]), CallerError::AutoByOrigin),
        (|new| new.origins = vec!["page".to_owned()], CallerError::Origin("page".parse::<crate::auth::Origin>().unwrap_err())),
        (|new| new.origins = vec![PAGE.to_owned(); ORIGINS_MAX + 1], CallerError::Origins),
        (|new| new.keys = KeyAccess::Only(vec!["other".parse().unwrap()]), CallerError::UnknownKey("other".parse().unwrap())),
        (|new| new.keys = KeyAccess::Only(Vec::new()), CallerError::NoKeys),
        (|new| new.default_key = Some("other".parse().unwrap()), CallerError::UnknownKey("other".parse().unwrap())),
        (
            |new| {
                new.with_api_key = false;
                new.origins = vec![PAGE.to_owned()];
                new.consent = ConsentPolicy::Operator;
                new.consent_for = [("seal".parse().unwrap(), ConsentPolicy::Auto)].into();
            },
            CallerError::AutoByOrigin,
        ),
        (
            |new| new.consent_for = [("other".parse().unwrap(), ConsentPolicy::Deny)].into(),
            CallerError::ConsentFor("other".parse().unwrap()),
        ),
        (|new| new.scopes = std::iter::empty().collect(), CallerError::Scopes(ScopeMismatch::NoScope)),
        (|new| new.rate = Some(Rate { per_second: 1, burst: 0 }), CallerError::Rate),
        (|new| new.expires = Some(Timestamp::from_millis(1)), CallerError::Expiry),
        (|new| new.id = "erp".parse().unwrap(), CallerError::Known("erp".parse().unwrap())),
    ];
    let store = store();
    let book = book(&store).await;
    book.add(new("erp"), "ann").await.unwrap();
    for (edit, error) in refused {
        let mut caller = new("new");
        edit(&mut caller);
        assert_eq!(book.add(caller, "ann").await.unwrap_err(), error);
    }
    assert_eq!(book.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn two_callers_with_one_certificate_are_refused_and_one_without_a_listener_for_it() {
    let certificate = crate::domain::certificate::ClientCertificateId::Subject("CN=erp".parse().unwrap());
    let certified = |name| NewCaller { with_api_key: false, client_certificate: Some(certificate.clone()), ..new(name) };
    let store = store();
    let book = book(&store).await;
    assert!(book.add(certified("erp"), "ann").await.unwrap().is_none());
    assert!(matches!(book.add(certified("two"), "ann").await.unwrap_err(), CallerError::Same(CallersError::SameCertificate(..))));
    assert_eq!(book.rotate(&id("erp"), Duration::ZERO, None, "ann").await.unwrap_err(), CallerError::Rotation(RotationRefusal::NoKey));
    let without = CallerBook::open(Vec::new(), BookSettings::default(), self::store()).await.unwrap();
    assert_eq!(without.add(certified("erp"), "ann").await.unwrap_err(), CallerError::NoCertificates);
}
