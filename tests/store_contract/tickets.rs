//! Tickets, their content, and what is forgotten.

use super::parts::*;

// Tickets.

pub async fn a_ticket_is_found_as_it_was_stored_and_gone_when_it_is_deleted(store: AnyStore) {
    let ticket = ticket("a");
    commit(&store, vec![insert(&ticket)]).await;
    assert_eq!(store.find_ticket(ticket.id).await.unwrap().as_ref(), Some(&ticket));
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(1));
    commit(&store, vec![Change::DeleteTicket(ticket.id)]).await;
    assert_eq!(store.find_ticket(ticket.id).await, Ok(None));
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(0));
    assert_eq!(conflict(&store, vec![Change::DeleteTicket(ticket.id)]).await, Conflict::TicketGone);
    assert_eq!(conflict(&store, vec![Change::UpdateTicket(ticket)]).await, Conflict::TicketGone);
}

pub async fn a_ticket_that_was_changed_since_it_was_read_is_not_closed(store: AnyStore) {
    let ticket = ticket("a");
    commit(&store, vec![insert(&ticket), Change::UpdateTicket(ticket.clone())]).await;
    let close = |version| vec![Change::CloseTicket { ticket: ticket.id, version }];
    assert_eq!(conflict(&store, close(0)).await, Conflict::TicketChanged);
    assert!(store.find_ticket(ticket.id).await.unwrap().is_some());
    commit(&store, close(1)).await;
    assert_eq!(store.find_ticket(ticket.id).await, Ok(None));
    assert_eq!(conflict(&store, close(1)).await, Conflict::TicketGone);
}

pub async fn a_caller_has_at_most_as_many_tickets_as_it_may(store: AnyStore) {
    let limited = |owner| Change::InsertTicket { ticket: ticket(owner), limit: 2 };
    let refusals = {
        let store = &store;
        race(8, |_| {
            let store = Arc::clone(store);
            async move { store.commit(vec![limited("a")]).await.err() }
        })
        .await
    };
    let refused: Vec<_> = refusals.into_iter().flatten().collect();
    assert_eq!(refused, vec![StoreError::Conflict(Conflict::TooManyTickets { limit: 2 }); 6]);
    commit(&store, vec![limited("b")]).await;
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(2));
}

pub async fn of_two_writers_of_a_ticket_the_second_is_refused(store: AnyStore) {
    let ticket = ticket("a");
    commit(&store, vec![insert(&ticket)]).await;
    let read = store.find_ticket(ticket.id).await.unwrap().unwrap();
    let written = |text: &str| Change::UpdateTicket(Ticket { metadata: Some(text.to_owned()), ..read.clone() });
    commit(&store, vec![written("first")]).await;
    assert_eq!(conflict(&store, vec![written("second")]).await, Conflict::TicketChanged);
    let now = store.find_ticket(ticket.id).await.unwrap().unwrap();
    assert_eq!((now.metadata.as_deref(), now.version), (Some("first"), read.version + 1));
    assert_eq!(conflict(&store, vec![insert(&ticket)]).await, Conflict::TicketChanged);
}

pub async fn a_touch_is_no_change_and_is_not_undone_by_one(store: AnyStore) {
    let ticket = ticket("a");
    commit(&store, vec![insert(&ticket)]).await;
    store.touch_ticket(ticket.id, LATER).await.unwrap();
    commit(&store, vec![Change::UpdateTicket(Ticket { metadata: Some("new".to_owned()), ..ticket.clone() })]).await;
    let now = store.find_ticket(ticket.id).await.unwrap().unwrap();
    assert_eq!((now.touched, now.metadata.as_deref()), (LATER, Some("new")));
    store.touch_ticket(ticket.id, NOW).await.unwrap();
    assert_eq!(store.find_ticket(ticket.id).await.unwrap().unwrap().touched, LATER);
    store.touch_ticket(TicketId::random(), NOW).await.unwrap();
}

pub async fn idle_tickets_are_removed_but_not_while_their_job_is_open(store: AnyStore) {
    let job = job("a", "one");
    let (idle, open, used) = (ticket("a"), refers_to(ticket("a"), &job), Ticket { touched: LATER, ..ticket("a") });
    commit(&store, vec![insert(&idle), insert(&used), accept(&job), insert(&open)]).await;
    let removed = |limit| {
        let store = Arc::clone(&store);
        async move { store.remove_idle_tickets(LATER, limit).await.unwrap().into_iter().map(|ticket| ticket.id).collect::<Vec<_>>() }
    };
    assert_eq!(removed(0).await, []);
    assert_eq!(removed(9).await, [idle.id]);
    commit(&store, vec![end(&store, &job, failed(FailureCause::Device)).await]).await;
    assert_eq!(removed(9).await, [open.id]);
    assert_eq!(removed(9).await, []);
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(1));
}

// Commits.

pub async fn a_commit_that_fails_at_its_last_change_changed_nothing(store: AnyStore) {
    let (kept, paying) = (ticket("a"), permit("a", 1));
    let (first, second, third) = (job("a", "one"), job("a", "one"), job("a", "one"));
    commit(&store, vec![insert(&kept), Change::InsertPermit(paying.clone()), accept(&first), accept(&second)]).await;
    assert_eq!(claim_ids(&store, "one", 1).await, [first.id]);

    let (new, new_permit) = (ticket("a"), permit("a", 1));
    let changes = vec![
        insert(&new),
        Change::InsertPermit(new_permit.clone()),
        Change::UpdateTicket(Ticket { metadata: Some("x".to_owned()), ..kept.clone() }),
        Change::RevokePermit(paying.id),
        accept(&paid_by(&new_permit, third.clone())),
        end(&store, &first, signed()).await,
        Change::CancelJob(second.id),
        Change::DeleteTicket(kept.id),
        Change::DeleteTicket(TicketId::random()),
    ];
    assert_eq!(conflict(&store, changes).await, Conflict::TicketGone);

    assert_eq!(store.find_ticket(new.id).await, Ok(None));
    assert_eq!(store.find_ticket(kept.id).await.unwrap().as_ref(), Some(&kept));
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(1));
    assert_eq!(store.find_permit(new_permit.id).await, Ok(None));
    assert_eq!(store.find_permit(paying.id).await.unwrap(), Some(paying));
    assert_eq!(store.find_job(third.id).await, Ok(None));
    assert_eq!((state_of(&store, &first).await, state_of(&store, &second).await), (JobState::Signing, JobState::Queued));
    assert_eq!(store.count_queued(&token("one")).await, Ok(1));
    assert_eq!(claim_ids(&store, "one", 9).await, [second.id]);
}

pub async fn a_commit_sees_its_own_earlier_changes(store: AnyStore) {
    let (new, paying) = (ticket("a"), permit("a", 1));
    let job = paid_by(&paying, job("a", "one"));
    commit(
        &store,
        vec![insert(&new), Change::InsertPermit(paying.clone()), accept(&job), end(&store, &job, failed(FailureCause::Cancelled)).await],
    )
    .await;
    assert_eq!(uses_of(&store, &paying).await, (0, 0));
    let changed = refers_to(new.clone(), &job);
    commit(&store, vec![Change::UpdateTicket(changed), Change::DeleteTicket(new.id)]).await;
    assert_eq!(store.find_ticket(new.id).await, Ok(None));
}

// Contents.

pub fn content(place: ContentPlace, bytes: &[u8]) -> Content {
    let sha256 = Digest::new(HashAlgorithm::Sha256, Sha256::of(bytes).as_bytes().to_vec()).unwrap();
    Content { place, len: bytes.len() as u64, sha256, objects: Vec::new() }
}

pub fn holding(ticket: &Ticket, place: ContentPlace, bytes: &[u8]) -> Ticket {
    Ticket { content: Some(content(place, bytes)), ..ticket.clone() }
}

pub fn put(ticket: &Ticket, bytes: &[u8]) -> Change {
    Change::PutContent { ticket: ticket.id, part: ContentPart::Document, bytes: bytes.into() }
}

pub async fn content_of(store: &AnyStore, ticket: &Ticket) -> Option<Vec<u8>> {
    store.read_content(ticket.id, ContentPart::Document).await.unwrap().map(|bytes| bytes.to_vec())
}

pub async fn stored(store: &AnyStore, ticket: &Ticket) -> Ticket {
    store.find_ticket(ticket.id).await.unwrap().unwrap()
}

pub async fn content_is_stored_replaced_and_gone_with_its_ticket(store: AnyStore) {
    let (first, idle) = (ticket("a"), ticket("a"));
    commit(&store, vec![insert(&first), insert(&idle)]).await;
    assert_eq!(content_of(&store, &first).await, None);
    let big = vec![0xA5; 300_000];
    commit(&store, vec![put(&first, &big), Change::UpdateTicket(holding(&first, ContentPlace::Stored, &big))]).await;
    commit(&store, vec![put(&idle, b"idle"), Change::UpdateTicket(holding(&idle, ContentPlace::Stored, b"idle"))]).await;
    assert_eq!(content_of(&store, &first).await, Some(big));
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 300_004, spooled: 0 }));

    let now = stored(&store, &first).await;
    commit(&store, vec![put(&first, b"new"), Change::UpdateTicket(holding(&now, ContentPlace::Stored, b"new"))]).await;
    assert_eq!(content_of(&store, &first).await.as_deref(), Some(&b"new"[..]));
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 7, spooled: 0 }));

    store.touch_ticket(first.id, LATER).await.unwrap();
    assert_eq!(store.remove_idle_tickets(LATER, 9).await.unwrap().len(), 1);
    assert_eq!(content_of(&store, &idle).await, None);
    commit(&store, vec![Change::DeleteTicket(first.id)]).await;
    assert_eq!(content_of(&store, &first).await, None);
    assert_eq!(store.content_usage().await, Ok(ContentUsage::default()));
}

pub async fn a_signature_is_kept_beside_the_content_and_goes_with_its_ticket(store: AnyStore) {
    let of = |ticket: &Ticket, place: ContentPlace, bytes: &[u8]| Ticket { signature: Some(content(place, bytes)), ..ticket.clone() };
    let put_signature =
        |ticket: &Ticket, bytes: &[u8]| Change::PutContent { ticket: ticket.id, part: ContentPart::Signature, bytes: bytes.into() };
    let signature_of =
        async |ticket: &Ticket| store.read_content(ticket.id, ContentPart::Signature).await.unwrap().map(|bytes| bytes.to_vec());
    let (first, idle) = (ticket("a"), ticket("a"));
    commit(&store, vec![insert(&first), insert(&idle), put(&first, b"document"), put_signature(&first, b"signature")]).await;
    let both = of(&holding(&first, ContentPlace::Stored, b"document"), ContentPlace::Stored, b"signature");
    let added = Augmentation { unsigned_attrs: vec![vec![0x30, 0]], time_stamps: vec!["ab".to_owned()] };
    let modifying = Some(Box::new(TicketModification {
        asked: NOW,
        signature_type: Some(SignatureType::Attached),
        cades_type: CadesType::XLong,
        signature_ts: true,
        added: Some(vec![added]),
    }));
    let mut both = both;
    let sha256 = both.content.as_ref().unwrap().sha256.clone();
    let object = DataObject { name: "a.txt".to_owned(), media_type: "text/plain".to_owned(), len: 8, sha256 };
    both.content.as_mut().unwrap().objects = vec![object];
    commit(&store, vec![Change::UpdateTicket(Ticket { verifying: Some(NOW), modifying: modifying.clone(), ..both.clone() })]).await;
    assert_eq!(stored(&store, &first).await.signature, both.signature);
    assert_eq!((stored(&store, &first).await.content, stored(&store, &first).await.modifying), (both.content.clone(), modifying));
    assert_eq!(stored(&store, &first).await.verifying, Some(NOW));
    assert_eq!((content_of(&store, &first).await, signature_of(&first).await), (Some(b"document".to_vec()), Some(b"signature".to_vec())));
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 17, spooled: 0 }));
    // It goes to the spool directory, and leaves the store and the document where they are.
    let now = stored(&store, &first).await;
    commit(&store, vec![Change::UpdateTicket(of(&now, ContentPlace::Spooled("signature-1".to_owned()), b"longer signature"))]).await;
    assert_eq!((content_of(&store, &first).await, signature_of(&first).await), (Some(b"document".to_vec()), None));
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 8, spooled: 16 }));
    assert_eq!(store.spooled_files().await.unwrap(), ["signature-1"]);
    commit(&store, vec![put_signature(&idle, b"idle"), Change::UpdateTicket(of(&idle, ContentPlace::Stored, b"idle"))]).await;
    store.touch_ticket(first.id, LATER).await.unwrap();
    assert_eq!(store.remove_idle_tickets(LATER, 9).await.unwrap().len(), 1);
    assert_eq!(signature_of(&idle).await, None);
    commit(&store, vec![Change::DeleteTicket(first.id)]).await;
    assert_eq!(store.content_usage().await, Ok(ContentUsage::default()));
}

pub async fn content_that_is_moved_to_the_spool_directory_is_gone_from_the_store(store: AnyStore) {
    let owner = ticket("a");
    commit(&store, vec![insert(&owner), put(&owner, b"small")]).await;
    commit(&store, vec![Change::UpdateTicket(holding(&owner, ContentPlace::Stored, b"small"))]).await;
    let now = stored(&store, &owner).await;
    commit(&store, vec![Change::UpdateTicket(holding(&now, ContentPlace::Spooled("file".to_owned()), b"larger"))]).await;
    assert_eq!(content_of(&store, &owner).await, None);
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 0, spooled: 6 }));
}

pub async fn spooled_files_are_listed_and_counted(store: AnyStore) {
    let spooled = |name: &str| holding(&ticket("a"), ContentPlace::Spooled(name.to_owned()), name.as_bytes());
    let (one, two) = (spooled("one"), spooled("three"));
    commit(&store, vec![insert(&one), insert(&two), insert(&ticket("a"))]).await;
    let mut names = store.spooled_files().await.unwrap();
    names.sort_unstable();
    assert_eq!(names, ["one", "three"]);
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 0, spooled: 8 }));
    assert_eq!(stored(&store, &one).await, one);
    commit(&store, vec![Change::DeleteTicket(one.id)]).await;
    assert_eq!(store.spooled_files().await.unwrap(), ["three"]);
}

// Forgetting.

pub async fn ended_jobs_and_expired_permits_are_forgotten_once_nobody_needs_them(store: AnyStore) {
    let (paying, spent) = (permit("a", 1), permit("a", 1));
    let (ended, referred, open) = (job("a", "one"), job("a", "one"), paid_by(&paying, job("a", "one")));
    let owner = refers_to(ticket("a"), &referred);
    commit(&store, vec![Change::InsertPermit(paying.clone()), Change::InsertPermit(spent.clone())]).await;
    commit(&store, vec![accept(&ended), accept(&referred), accept(&open), insert(&owner)]).await;
    commit(&store, vec![Change::CancelJob(ended.id), Change::CancelJob(referred.id)]).await;

    assert_eq!(store.forget_ended(NOW, 9).await, Ok(0));
    assert_eq!(store.forget_ended(END_OF_TIME, 0).await, Ok(0));
    assert_eq!(store.forget_ended(END_OF_TIME, 9).await, Ok(2));
    assert_eq!((store.find_job(ended.id).await, store.find_permit(spent.id).await), (Ok(None), Ok(None)));
    assert!(store.find_job(referred.id).await.unwrap().is_some());
    assert!(store.find_permit(paying.id).await.unwrap().is_some());

    commit(&store, vec![Change::DeleteTicket(owner.id), Change::CancelJob(open.id)]).await;
    assert_eq!(store.forget_ended(END_OF_TIME, 1).await, Ok(1));
    assert_eq!(store.forget_ended(END_OF_TIME, 9).await, Ok(2));
    assert_eq!(store.find_permit(paying.id).await, Ok(None));
}
