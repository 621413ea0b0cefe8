//! Certificates that come to their end: who is told, and renewal by the gateway itself.

use std::time::Duration;

use tracing::warn;
use uuid::Uuid;

use super::{
    ACTIVE_MAX, EnrolmentError, EnrolmentService,
    clerk::{BY_GATEWAY, Told, is_news},
};
use crate::{
    domain::{
        audit::AuditEvent,
        certificate::validity,
        enrolment::{Enrolment, EnrolmentState, ExternalId, HistoryEntry, Step, StepKind},
        ids::EnrolmentId,
    },
    store::{Change, EnrolmentFilter},
};

/// So many days before its end a certificate is told of, each once.
pub const WARN_DAYS: [u32; 4] = [30, 7, 1, 0];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An active certificate and how long it is valid still.
#[derive(Debug, Clone)]
pub struct Expiring {
    /// Its request.
    pub enrolment: Enrolment,
    /// Whole days until its end; 0 on its last day and afterwards.
    pub days_left: u32,
    /// It is over.
    pub expired: bool,
}

impl EnrolmentService {
    /// The active certificates that expire within `days`, the first to expire coming first.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn expiring(&self, days: u32) -> Result<Vec<Expiring>, EnrolmentError> {
        let active = EnrolmentFilter { active: true, ..EnrolmentFilter::default() };
        let now = self.parts.store.now();
        let mut found: Vec<_> = Vec::new();
        for enrolment in self.parts.store.list_enrolments(&active, ACTIVE_MAX).await? {
            let Some(validity) = enrolment.issued.as_ref().and_then(|issued| validity(&issued.certificate)) else { continue };
            let left = validity.not_after.since(now);
            let days_left = u32::try_from(left.as_secs() / DAY.as_secs()).unwrap_or(u32::MAX);
            if days_left <= days {
                found.push((validity.not_after, Expiring { enrolment, days_left, expired: left.is_zero() }));
            }
        }
        found.sort_by_key(|(end, _)| *end);
        Ok(found.into_iter().map(|(_, expiring)| expiring).collect())
    }

    /// Tells of certificates that come to their end, and renews those that the CA renews.
    pub(super) async fn look_at_validity(&self, told: &Told) -> Result<(), EnrolmentError> {
        let renew_days = self.parts.renew_days.unwrap_or(0);
        for expiring in self.expiring(WARN_DAYS[0].max(renew_days)).await? {
            let Expiring { enrolment, days_left, expired } = &expiring;
            if let Some(mark) = WARN_DAYS.into_iter().filter(|mark| days_left <= mark).min()
                && is_news(told, enrolment.id, mark)
            {
                self.tell(enrolment, *days_left, *expired).await?;
            }
            if *days_left < renew_days {
                match self.renew(enrolment).await {
                    Ok(()) | Err(EnrolmentError::Overtaken) => {}
                    Err(error) => warn!(enrolment.id = %enrolment.id, error = %error, "a certificate could not be renewed"),
                }
            }
        }
        Ok(())
    }

    async fn tell(&self, enrolment: &Enrolment, days_left: u32, expired: bool) -> Result<(), EnrolmentError> {
        let name = &enrolment.key_name;
        if expired {
            warn!(key.name = %name, "the certificate of {name} has expired; the key signs nothing until it is renewed");
        } else {
            warn!(key.name = %name, days = days_left, "the certificate of {name} expires in {days_left} days; renew it");
        }
        let event = AuditEvent::CertificateExpires {
            enrolment: enrolment.id,
            organisation: enrolment.organisation.clone(),
            login: enrolment.login.clone(),
            key_name: name.clone(),
            days_left,
            expired,
        };
        Ok(self.parts.store.commit(vec![Change::Audit(event)]).await?)
    }

    /// Asks the CA for another certificate of the same key, unless that was done or the CA does not renew.
    async fn renew(&self, former: &Enrolment) -> Result<(), EnrolmentError> {
        let profile = self.profile(&former.profile)?;
        if !self.parts.authorities.get(&profile.ca).is_some_and(|ca| ca.renews()) {
            return Ok(());
        }
        let (Some(request), Some(_)) = (&former.request, &former.key) else { return Ok(()) };
        // Made of the former one's id, so that it is made once, by however many gateways.
        let external_id: ExternalId = renewal_id(former.id);
        let now = self.parts.store.now();
        let mut renewal = Enrolment {
            id: EnrolmentId::of(&former.organisation, &external_id),
            external_id,
            state: EnrolmentState::Accepted,
            approved: false,
            active: false,
            comment: String::new(),
            ca_reference: None,
            due: None,
            attempts: 0,
            issued: None,
            renews: Some(former.id),
            activated: None,
            history: vec![HistoryEntry { at: now, what: StepKind::Created, by: BY_GATEWAY.to_owned(), detail: String::new() }],
            created: now,
            version: 0,
            ..former.clone()
        };
        if self.parts.store.find_enrolment(renewal.id).await?.is_some() {
            return Ok(());
        }
        let created = AuditEvent::of_step(&renewal);
        let step = Step::Prepared { request: request.0.clone(), key: former.key.clone(), confirm: false, approved: true };
        renewal.step(step, now, BY_GATEWAY)?;
        let changes =
            vec![Change::InsertEnrolment(Box::new(renewal.clone())), Change::Audit(created), Change::Audit(AuditEvent::of_step(&renewal))];
        self.parts.store.commit(changes).await?;
        self.wake.notify_one();
        Ok(())
    }
}

fn renewal_id(former: EnrolmentId) -> ExternalId {
    let hash = crate::domain::audit::Sha256::of(&[b"Sealgate renewal\0", former.as_uuid().as_bytes().as_slice()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    // INVARIANT: a UUID is written in lower-case hex digits.
    #[allow(clippy::expect_used)]
    Uuid::from_bytes(bytes).hyphenated().to_string().parse().expect("a UUID is an external id")
}
